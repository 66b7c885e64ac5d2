"""Embed an items table of any size, part by part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from recsys.bulk.parts import WHOLE, Shard
from recsys.bulk.runs import (
    Engine,
    InputTable,
    begin_run,
    check_run,
    finish_run,
    folder_of,
    make_missing,
)
from recsys.bulk.table import fingerprint, repeated_rows
from recsys.bulk.worker import EmbeddingJob
from recsys.bundle import Bundle
from recsys.data.loading import default_images_root
from recsys.data.progress import Progress
from recsys.data.quarantine import describe_rule
from recsys.data.tables import Source
from recsys.errors import InvalidArgumentError
from recsys.schema import ItemSchema
from vision.precision import Precision

ROWS_PER_PART = 4_096  # an interruption loses at most these, and memory holds them


@dataclass(frozen=True)
class EmbedOptions:
    """How a table is embedded.

    Args:
        images_root: Folder that picture paths are relative to. None takes the table's folder.
        shard: Parts to make in this run.
        engine: ``local`` runs in this process. ``ray`` spreads the parts over the processes of a
            Ray cluster, all of which see the same files.
        device: Device that the networks run on.
        precision: Number format of the towers, see ``ItemEmbedder.modalities``.
        rows_per_part: Rows of the table in a part.

    Raises:
        InvalidArgumentError: If a value is not among the known ones, or out of range.
    """

    images_root: Path | None = None
    shard: Shard = WHOLE
    engine: Engine = "local"
    device: str = "cpu"
    precision: Precision = "32-true"
    rows_per_part: int = ROWS_PER_PART

    def __post_init__(self) -> None:
        check_run(self.engine, self.rows_per_part)
        if self.precision not in get_args(Precision):
            raise InvalidArgumentError(
                f"precision must be one of {', '.join(get_args(Precision))}, got {self.precision!r}"
            )


@dataclass(frozen=True)
class Embedded:
    """The outcome of embedding a table, or one shard of it.

    Args:
        n_rows: Number of rows of the table.
        n_items: Number of rows that were embedded.
        failures: Number of rows that broke each rule, most first. An item with a bad cell or
            picture is counted here, and embedded from the rest.
        files: Files with the embeddings, in the order of the table.
    """

    n_rows: int
    n_items: int
    failures: Mapping[str, int]
    files: Sequence[Path]

    def lines(self) -> list[str]:
        """Return the failures as sentences."""
        return [
            describe_rule("items", rule, count, self.n_rows)
            for rule, count in self.failures.items()
        ]


def embed_items(
    bundle: Bundle,
    items: Source,
    out: Path,
    options: EmbedOptions = EmbedOptions(),
    *,
    progress: Progress | None = None,
) -> Embedded:
    """Write ``id``, ``embedding`` and ``modalities`` of every valid item, in the table's order.

    Parts that were finished before an interruption are kept, and the files are the same as without
    it. Memory holds one part, and at first 16 bytes for each row. See docs/embedding.md.

    Args:
        bundle: Bundle with the towers and the fusion.
        items: Items table in any format of files that training takes.
        out: Folder for the parts, which machines with other shards may share. Without shards also
            a file that ends in ``.parquet``, to which the parts are joined at the end.
        options: Shard, engine, device and number format.
        progress: Function called after each part with the number of finished rows of the shard.

    Raises:
        DataError: If the table cannot be read, or has no valid row (checked where there is one
            shard), or if the folder is of a run with another bundle, table or setting.
        FileAccessError: If a file cannot be written.
        MissingExtraError: If the engine is not installed.
        InvalidArgumentError: If ``out`` has another suffix, or the shard has no part.
    """
    shard, root = options.shard, options.images_root
    # Absolute, because the processes of a cluster start in other folders.
    root = (root if root is not None else default_images_root(items)).resolve()
    out = out.absolute()
    folder = folder_of(out, shard)
    inputs = {
        "bundle": bundle.version,
        "table": fingerprint(items),
        "images_root": str(root),
        "precision": options.precision,
    }
    table = InputTable("items", items, ItemSchema)
    parts = begin_run(table, folder, inputs, options.rows_per_part, shard)
    if parts.missing(shard):
        repeated = repeated_rows(parts.table)
        job = EmbeddingJob(bundle.path, parts, repeated, root, options.device, options.precision)
        make_missing(job, shard, options.engine, "items", progress)
    n_rows, n_items, failures, files = finish_run(parts, shard, out, "items")
    return Embedded(n_rows, n_items, failures, files)
