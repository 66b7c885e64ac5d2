"""A bulk run over a table: find or begin its parts, make the missing ones, join them."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import dataframely as dy
import polars as pl

from recsys.bulk.parts import WHOLE, Job, Parts, Shard, begin_parts, find_parts
from recsys.bulk.ray import make_on_ray
from recsys.bulk.table import copy_table
from recsys.data.files import whole_file
from recsys.data.progress import Progress
from recsys.data.quarantine import describe_rule
from recsys.data.tables import Source
from recsys.errors import DataError, InvalidArgumentError

# ``local`` makes the parts in this process. ``ray`` spreads them over the processes of a Ray
# cluster, all of which see the same files.
Engine = Literal["local", "ray"]


class InputTable(NamedTuple):
    """The table of a run: its name in messages, its files, and its schema of ``recsys.schema``."""

    name: str
    source: Source
    schema: type[dy.Schema]


class Finished(NamedTuple):
    """The outcome of a run, or of one shard of it.

    Args:
        n_rows: Number of rows of the table.
        n_written: Number of rows of the output.
        failures: Number of rows that broke each rule, most first.
        files: Files with the output, in the order of the table.
    """

    n_rows: int
    n_written: int
    failures: Mapping[str, int]
    files: Sequence[Path]


def check_run(engine: str, rows_per_part: int) -> None:
    """Raise unless the engine is known and a part has rows.

    Raises:
        InvalidArgumentError: If one of them is not so.
    """
    if engine not in get_args(Engine):
        raise InvalidArgumentError(
            f"engine must be one of {', '.join(get_args(Engine))}, got {engine!r}"
        )
    if rows_per_part < 1:
        raise InvalidArgumentError(f"rows_per_part must be at least 1, got {rows_per_part}")


def folder_of(out: Path, shard: Shard) -> Path:
    """Return the folder for the parts of ``out``, which is that folder or one Parquet file.

    Raises:
        InvalidArgumentError: If ``out`` is neither, or a file where there are shards.
    """
    is_file = out.suffix == ".parquet"
    # A folder of this name would be taken for the table that it does not hold.
    is_other_file = out.suffix in (".csv", ".json", ".ndjson", ".jsonl", ".npy")
    if is_other_file or (out.exists() and out.is_dir() == is_file):
        raise InvalidArgumentError(
            f"out must be a folder, or a file that ends in .parquet, got {out}"
        )
    if is_file and shard.count > 1:
        raise InvalidArgumentError(
            f"out must be a folder where there are shards, got the file {out}"
        )
    return out.with_name(f".{out.name}.parts") if is_file else out


def begin_run(
    table: InputTable, folder: Path, inputs: Mapping[str, Any], rows_per_part: int, shard: Shard
) -> Parts:
    """Return the parts of a new run, or of one that an earlier run began in the folder.

    Where the shard has parts to make, the folder then has a copy of the table.

    Args:
        table: Table whose rows the parts are made of.
        folder: Folder of the parts.
        inputs: Everything else that decides what the parts hold, as JSON values.
        rows_per_part: Rows of the table in a part.
        shard: Parts to make in this run.

    Raises:
        DataError: If the table cannot be read, or the folder is of a run with other inputs.
        SchemaError: If a column is missing or has a type that cannot be read.
        InvalidArgumentError: If the shard has no part.
    """

    def copy() -> int:
        path = Parts(folder, rows_per_part, 0).table
        return copy_table(table.source, table.schema, path, rows_per_part, table=table.name)

    parts = find_parts(folder, inputs, rows_per_part)
    if parts is None:
        parts = begin_parts(folder, inputs, rows_per_part, copy())
    if not parts.of(shard):
        raise InvalidArgumentError(
            f"shard must be one of {len(parts.of(WHOLE))}, as many as the table has parts of "
            f"{rows_per_part} rows, got {shard.index}/{shard.count}"
        )
    if parts.missing(shard) and not parts.table.exists():
        copy()
    return parts


def make_missing(
    job: Job, shard: Shard, engine: Engine, table: str, progress: Progress | None
) -> None:
    """Make the parts of a shard that are missing.

    Args:
        job: Inputs of the parts.
        shard: Parts to make in this run.
        engine: Where they are made.
        table: Name of the table, for the progress.
        progress: Function called after each part with the number of finished rows of the shard.

    Raises:
        MissingExtraError: If the engine is not installed.
    """
    missing = job.parts.missing(shard)
    ENGINES[engine](job, missing, _reporter(job.parts, shard, table, progress))


def _make_here(job: Job, missing: Sequence[int], done: Callable[[int], None]) -> None:
    worker = job.build()
    for part in missing:
        worker(part)
        done(part)


ENGINES: dict[Engine, Callable[[Job, Sequence[int], Callable[[int], None]], None]] = {
    "local": _make_here,
    "ray": make_on_ray,
}


def _reporter(
    parts: Parts, shard: Shard, table: str, progress: Progress | None
) -> Callable[[int], None]:
    """Return the function to call with the number of each finished part."""
    total = sum(parts.count_rows(part) for part in parts.of(shard))
    n_done = total - sum(parts.count_rows(part) for part in parts.missing(shard))

    def done(part: int) -> None:
        nonlocal n_done
        n_done += parts.count_rows(part)
        if progress is not None:
            progress(table, n_done, total)

    return done


def finish_run(parts: Parts, shard: Shard, out: Path, table: str) -> Finished:
    """Return what a shard's parts hold, after joining them where ``out`` is a file.

    Args:
        parts: Finished parts.
        shard: Parts that were made in this run.
        out: Folder of the parts, or the file to join them to.
        table: Name of the table in error messages.

    Raises:
        DataError: If the parts are the whole table and no row was valid.
    """
    numbers = parts.of(shard)
    files = [parts.output(part) for part in numbers]
    bad = [path for part in numbers if (path := parts.quarantine(part)).exists()]
    n_rows = sum(parts.count_rows(part) for part in numbers)
    n_written = int(pl.scan_parquet(files, glob=False).select(pl.len()).collect().item())
    failures = _count_rules(bad)
    if n_written and parts.folder != out:
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
    if not n_written and shard.count == 1:
        lines = [describe_rule(table, rule, count, n_rows) for rule, count in failures.items()]
        reasons = "\n  ".join(lines)
        raise DataError(f"table {table} must have a valid row, got none\n  {reasons}")
    return Finished(n_rows, n_written, failures, files if parts.folder == out else [out])


def _join(files: list[Path], out: Path) -> None:
    with whole_file(out) as scratch:
        pl.scan_parquet(files, glob=False).sink_parquet(scratch)


def _count_rules(files: list[Path]) -> dict[str, int]:
    if not files:
        return {}
    counts = pl.scan_parquet(files, glob=False).group_by("rule").len()
    return dict(counts.sort("len", "rule", descending=[True, False]).collect().iter_rows())
