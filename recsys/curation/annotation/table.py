"""Annotate the pictures of a table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import dataframely as dy
import polars as pl

from recsys.bundle import Bundle
from recsys.curation.annotation.pictures import annotate
from recsys.curation.annotation.words import annotate_words
from recsys.data.files import scratch_folder, whole_file
from recsys.data.loading import default_images_root, read_table
from recsys.data.pictures import Broken, check_pictures, failures_with, picture_fault
from recsys.data.progress import Progress
from recsys.data.quarantine import ROW, TableReport, validate
from recsys.data.tables import Source
from recsys.errors import DataError, InvalidArgumentError, InvalidImageError

ROWS_PER_PART = 1_024  # the unit that is read again if one of its pictures is damaged
_FILE = "file"  # column with the path of the picture as it is on disk


class PictureSchema(dy.Schema):
    """Columns of a table of items or photos that annotation reads."""

    item_id = dy.String(nullable=True, description="Id of the item on the picture.")
    image = dy.String(min_length=1, description="Path of the picture, relative to the images root.")


@dataclass(frozen=True)
class AnnotateOptions:
    """How a table is annotated.

    Args:
        images_root: Folder that picture paths are relative to; the folder of the table if None.
        min_probability: As for ``annotate``.
        temperatures: As for ``annotate``.
        words: Words to choose from, as for ``annotate_words``; None takes what the tower learned.
        read_words: As for ``annotate``, for what the tower learned.
        device: Device of the tower.
        rows_per_part: Rows that are annotated, and held in memory, at once.

    Raises:
        InvalidArgumentError: If ``rows_per_part`` is below 1.
    """

    images_root: Path | None = None
    min_probability: float = 0.5
    temperatures: Mapping[str, float] | None = None
    words: Sequence[str] | None = None
    read_words: bool = False
    device: str = "cpu"
    rows_per_part: int = ROWS_PER_PART

    def __post_init__(self) -> None:
        if self.rows_per_part < 1:
            raise InvalidArgumentError(
                f"rows_per_part must be at least 1, got {self.rows_per_part}"
            )


def annotate_table(
    bundle: Bundle,
    table: Source,
    out: Path,
    options: AnnotateOptions = AnnotateOptions(),
    *,
    progress: Progress | None = None,
) -> TableReport:
    """Write ``item_id``, ``image`` and the columns of ``annotate`` for every picture in a table.

    Rows whose picture is missing or unreadable are left out. They are in the report, and beside
    ``out`` in a file that ends in ``.quarantine.parquet``. Memory holds these two columns of the
    table, and 64 pictures at a time.

    Args:
        bundle: Bundle with the vision tower.
        table: Table of items or photos, in any format that training reads.
        out: Parquet file, which appears only when it is complete.
        options: How to annotate.
        progress: Called after each part with the number of pictures done, and of all.

    Raises:
        DataError: If the table cannot be read, or every picture in it is unreadable.
        SchemaError: If the table lacks the column of pictures.
        MissingPartError: If the bundle has no vision tower, or cannot compare pictures with words.
        InvalidArgumentError: If an argument cannot be used.
    """
    if out.suffix != ".parquet":
        raise InvalidArgumentError(f"out must end in .parquet, got {out.name!r}")
    root = options.images_root or default_images_root(table)
    loaded = read_table(
        table,
        PictureSchema,
        "pictures",
        lambda rows: validate(rows, PictureSchema, table="pictures", rules={}),
    )
    checked = check_pictures(set(loaded.frame["image"]), root, check_image=None, progress=None)
    broken = checked.broken
    rows = loaded.frame.filter(~pl.col("image").is_in(list(broken)))
    rows = rows.with_columns(pl.col("image").replace(checked.renamed).alias(_FILE))
    describe = _describer(bundle, options)
    with scratch_folder(out) as folder:
        for start in range(0, len(rows), options.rows_per_part):
            part = rows[start : start + options.rows_per_part]
            annotated, torn = _annotate_part(part, root, describe)
            annotated.write_parquet(folder / f"{start:012}.parquet")
            broken |= torn
            if progress is not None:
                progress("pictures", start + len(part), len(rows))
        failures = failures_with(loaded, broken, kept=False)
        n_valid = len(loaded.frame.filter(~pl.col("image").is_in(list(broken))))
        report = replace(loaded.report, n_valid=n_valid, failures=failures)
        _join(folder, out, report)
    return report


def _describer(bundle: Bundle, options: AnnotateOptions) -> Callable[[list[Path]], pl.DataFrame]:
    """Return the function that annotates pictures, by words where there are some."""
    least, device = options.min_probability, options.device
    if options.words is not None:
        words = options.words
        return lambda files: annotate_words(
            bundle, files, words, min_probability=least, device=device
        )
    return partial(
        annotate,
        bundle,
        min_probability=least,
        temperatures=options.temperatures,
        device=device,
        read_words=options.read_words,
    )


def _join(parts: Path, out: Path, report: TableReport) -> None:
    """Join the annotations in a folder into one file, and write the failures beside it.

    Raises:
        DataError: If every row failed.
    """
    if not report.n_valid:
        reasons = "\n  ".join(report.lines())
        raise DataError(f"table must have a readable picture, but every row failed\n  {reasons}")
    with whole_file(out) as scratch:
        pl.scan_parquet(sorted(parts.iterdir()), glob=False).sink_parquet(scratch)
    quarantine = out.with_suffix(".quarantine.parquet")
    quarantine.unlink(missing_ok=True)  # an earlier run may have left one
    if len(report.failures):
        with whole_file(quarantine) as scratch:
            report.failures.write_parquet(scratch)


def _annotate_part(
    rows: pl.DataFrame, root: Path, describe: Callable[[list[Path]], pl.DataFrame]
) -> tuple[pl.DataFrame, dict[str, Broken]]:
    """Return the annotations of the rows, and what is wrong with each damaged picture."""
    broken: dict[str, Broken] = {}
    try:
        described = describe([root / file for file in rows[_FILE]])
    except InvalidImageError:
        # Damage is rare, so pictures are decoded a second time only after one has failed.
        names = set(rows["image"])
        broken = check_pictures(names, root, check_image=picture_fault, progress=None).broken
        rows = rows.filter(~pl.col("image").is_in(list(broken)))
        described = describe([root / file for file in rows[_FILE]])
    return rows.drop(ROW, _FILE).hstack(described), broken
