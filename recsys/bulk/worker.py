"""Make one part of the embeddings."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.bulk.parts import Parts
from recsys.bundle import Bundle
from recsys.catalogue.embedder import ItemEmbedder, Modalities, item_texts
from recsys.data.files import whole_file
from recsys.data.loading import check_items
from recsys.data.pictures import CheckImage, picture_fault
from recsys.data.quarantine import ROW, Loaded, add_failures
from recsys.errors import InvalidImageError
from vision.precision import Precision


@dataclass(frozen=True)
class EmbeddingJob:
    """What the parts of the embeddings are made from; see ``recsys.bulk.parts.Job``.

    Args:
        bundle: Folder of the bundle.
        parts: Paths of the parts.
        repeated: Rows of the table, from 0, whose id is that of an earlier row.
        images_root: Folder that picture paths are relative to.
        device: Device that the networks run on.
        precision: Number format of the towers.
    """

    bundle: Path
    parts: Parts
    repeated: pl.Series
    images_root: Path
    device: str
    precision: Precision

    def build(self) -> Callable[[int], None]:
        """Return a function that makes the part of a given number, with the networks loaded."""
        embedder = Bundle(self.bundle).embedder(device=self.device)
        return lambda part: embed_part(self, embedder, part)


def embed_part(job: EmbeddingJob, embedder: ItemEmbedder, part: int) -> None:
    """Write ``id``, ``embedding`` and ``modalities`` of a part's items, and its failures.

    Failures are written first, so a part with embeddings is complete.
    """
    loaded, modalities = _read(job, embedder, part)
    names = list(embedder.fusion.modalities)
    present = np.stack([modalities.present[name] for name in names], axis=1)  # (B, M)
    usable = np.any(present, axis=1)
    frame = pl.DataFrame(
        {
            "id": loaded.frame["item_id"],
            "embedding": embedder.fuse(modalities),
            "modalities": pl.Series(
                [[name for name, has in zip(names, row, strict=True) if has] for row in present],
                dtype=pl.List(pl.String),
            ),
        }
    ).filter(usable)
    failures = _failures(loaded, usable, first_row=part * job.parts.rows_per_part)
    # A run that ended right after writing it may have left one.
    job.parts.quarantine(part).unlink(missing_ok=True)
    if len(failures):
        with whole_file(job.parts.quarantine(part)) as scratch:
            failures.write_parquet(scratch)
    with whole_file(job.parts.output(part)) as scratch:
        frame.write_parquet(scratch)


def _read(job: EmbeddingJob, embedder: ItemEmbedder, part: int) -> tuple[Loaded, Modalities]:
    """Return a part's valid rows and their tower outputs."""
    size = job.parts.rows_per_part
    table = pl.scan_parquet(job.parts.table, glob=False).slice(part * size, size)
    repeated = job.repeated.filter(job.repeated // size == part) % size + 1
    rules = {"item_id_is_unique": ~pl.col(ROW).is_in(repeated.to_list())}

    def read(check_image: CheckImage | None) -> tuple[Loaded, Modalities]:
        loaded = check_items(table, job.images_root, rules=rules, check_image=check_image)
        pictures = [job.images_root / image if image else None for image in loaded.frame["image"]]
        texts = item_texts(loaded.frame)
        return loaded, embedder.modalities(texts, pictures, precision=job.precision)

    try:
        return read(None)
    except InvalidImageError:
        # Only now is every picture of the part decoded to find the bad ones: doing so first would
        # decode each picture of each table twice.
        return read(picture_fault)


def _failures(loaded: Loaded, usable: NDArray[np.bool_], *, first_row: int) -> pl.DataFrame:
    """Return a part's failures by the row of the table, with the items that have no modality."""
    empty = loaded.frame.filter(~usable).with_columns(rule=pl.lit("embeddable"))
    failures = add_failures(loaded.report.failures, empty, kept=False)
    return failures.with_columns(pl.col(ROW) + first_row)
