"""Embed an items table of any size, part by part."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import polars as pl

from recsys.bulk.parts import WHOLE, Inputs, Parts, Shard, begin_parts, find_parts
from recsys.bulk.ray import embed_on_ray
from recsys.bulk.table import copy_table, fingerprint, repeated_rows
from recsys.bulk.worker import Job, build_worker
from recsys.bundle import Bundle
from recsys.data.files import whole_file
from recsys.data.loading import default_images_root
from recsys.data.pictures import Progress
from recsys.data.quarantine import explain
from recsys.data.tables import Source
from recsys.errors import DataError, InvalidArgumentError
from vision.precision import Precision

Engine = Literal["local", "ray"]
ROWS_PER_PART = 4_096  # what an interruption loses at most, and what is held in memory


@dataclass(frozen=True)
class Embedded:
    """What became of the rows of a table, or of one shard of it.

    Args:
        n_rows: Rows of the table.
        n_items: Rows that were embedded.
        failures: How many rows broke each rule, most first. An item whose picture alone is bad is
            counted and yet embedded, from its words.
        files: The embeddings, in the order of the table.
    """

    n_rows: int
    n_items: int
    failures: Mapping[str, int]
    files: Sequence[Path]

    def lines(self) -> list[str]:
        """Return the failures as sentences."""
        return [
            f"items: {count} of {self.n_rows} rows: {explain(rule)}"
            for rule, count in self.failures.items()
        ]


def embed_items(
    bundle: Bundle,
    items: Source,
    out: Path,
    *,
    images_root: Path | None = None,
    shard: Shard = WHOLE,
    engine: Engine = "local",
    device: str = "cpu",
    precision: Precision = "32-true",
    rows_per_part: int = ROWS_PER_PART,
    progress: Progress | None = None,
) -> Embedded:
    """Write ``id``, ``embedding`` and ``modalities`` of every valid item, in the table's order.

    What was done before an interruption is kept, and the files are the same as without it. No more
    than a part is held in memory, and 16 bytes for each row at first. See docs/embedding.md.

    Args:
        bundle: Whose towers and fusion to use.
        items: Items table in any format that training takes.
        out: Folder for the parts, which the machines that run other shards may share; or, without
            shards, a file that ends in ``.parquet``, to which they are joined at the end.
        images_root: What picture paths are relative to; the table's folder if None.
        shard: Which parts to make.
        engine: ``ray`` spreads the parts over the processes of a Ray cluster, all of which see the
            same files.
        device: Where the networks run.
        precision: Of the towers, see ``ItemEmbedder.modalities``.
        rows_per_part: Rows of the table in a part.
        progress: Told after each part how many rows of the shard are done.

    Raises:
        DataError: If the table cannot be read or has no valid row (of which one shard of several
            knows nothing), or if the folder is of a run with another bundle, table or setting.
        MissingExtraError: If the engine is not installed.
        InvalidArgumentError: If an argument is out of range, or the shard has no part.
    """
    _check(engine, precision, rows_per_part)
    # Absolute, because the processes of a cluster start in other folders.
    root = (images_root if images_root is not None else default_images_root(items)).resolve()
    out = out.absolute()
    folder = _folder(out, shard)
    inputs = Inputs(
        bundle=bundle.version,
        table=fingerprint(items),
        images_root=str(root),
        precision=precision,
        rows_per_part=rows_per_part,
    )
    parts = find_parts(folder, inputs) or _begin(folder, inputs, items)
    if not parts.of(shard):
        raise InvalidArgumentError(
            f"shard must be one of {len(parts.of(WHOLE))}, as many as the table has parts of "
            f"{rows_per_part} rows, got {shard.index}/{shard.count}"
        )
    if missing := parts.missing(shard):
        if not parts.table.exists():
            copy_table(items, parts.table, rows_per_part)
        repeated = repeated_rows(parts.table)
        job = Job(bundle.path, parts, repeated, root, device, precision)
        ENGINES[engine](job, missing, _reporter(parts, shard, progress))
    return _finish(parts, shard, out)


def _check(engine: str, precision: str, rows_per_part: int) -> None:
    for name, value, known in (
        ("engine", engine, tuple(ENGINES)),
        ("precision", precision, get_args(Precision)),
    ):
        if value not in known:
            raise InvalidArgumentError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    if rows_per_part < 1:
        raise InvalidArgumentError(f"rows_per_part must be at least 1, got {rows_per_part}")


def _folder(out: Path, shard: Shard) -> Path:
    """Return the folder for the parts of ``out``."""
    is_file = out.suffix == ".parquet"
    if out.exists() and out.is_dir() == is_file:
        raise InvalidArgumentError(
            f"out must be a folder, or a file that ends in .parquet, got {out}"
        )
    if is_file and shard.count > 1:
        raise InvalidArgumentError(
            f"out must be a folder where there are shards, got the file {out}"
        )
    return out.with_name(f".{out.name}.parts") if is_file else out


def _begin(folder: Path, inputs: Inputs, items: Source) -> Parts:
    table = Parts(folder, inputs.rows_per_part, 0).table
    return begin_parts(folder, inputs, copy_table(items, table, inputs.rows_per_part))


def _embed_here(job: Job, missing: Iterable[int], done: Callable[[int], None]) -> None:
    worker = build_worker(job)
    for part in missing:
        worker(part)
        done(part)


ENGINES = {"local": _embed_here, "ray": embed_on_ray}


def _reporter(parts: Parts, shard: Shard, progress: Progress | None) -> Callable[[int], None]:
    """Return what is to be told the number of each part that is done."""
    total = sum(parts.count_rows(part) for part in parts.of(shard))
    n_done = total - sum(parts.count_rows(part) for part in parts.missing(shard))

    def done(part: int) -> None:
        nonlocal n_done
        n_done += parts.count_rows(part)
        if progress is not None:
            progress("items", n_done, total)

    return done


def _finish(parts: Parts, shard: Shard, out: Path) -> Embedded:
    """Return what a shard's parts hold, after joining them where ``out`` is a file.

    Raises:
        DataError: If they hold nothing and are the whole table.
    """
    numbers = parts.of(shard)
    files = [parts.embeddings(part) for part in numbers]
    bad = [path for part in numbers if (path := parts.quarantine(part)).exists()]
    embedded = Embedded(
        n_rows=sum(parts.count_rows(part) for part in numbers),
        n_items=int(pl.scan_parquet(files).select(pl.len()).collect().item()),
        failures=_count_rules(bad),
        files=files if parts.folder == out else [out],
    )
    if embedded.n_items and parts.folder != out:
        _join(files, out)
        quarantine = out.with_suffix(".quarantine.parquet")
        quarantine.unlink(missing_ok=True)  # of an earlier run
        if bad:
            _join(bad, quarantine)
    if not parts.missing():  # nobody needs it any more
        parts.table.unlink(missing_ok=True)
    if parts.folder != out:
        shutil.rmtree(parts.folder)
    # Where this shard has no valid row, another may have some.
    if not embedded.n_items and shard.count == 1:
        reasons = "\n  ".join(embedded.lines())
        raise DataError(f"table items must have a valid row, got none\n  {reasons}")
    return embedded


def _join(files: list[Path], out: Path) -> None:
    with whole_file(out) as scratch:
        pl.scan_parquet(files).sink_parquet(scratch)


def _count_rules(files: list[Path]) -> dict[str, int]:
    if not files:
        return {}
    counts = pl.scan_parquet(files).group_by("rule").len()
    return dict(counts.sort("len", "rule", descending=[True, False]).collect().iter_rows())
