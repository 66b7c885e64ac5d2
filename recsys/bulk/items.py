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
from recsys.data.progress import Progress
from recsys.data.quarantine import describe_rule
from recsys.data.tables import Source
from recsys.errors import DataError, InvalidArgumentError
from vision.precision import Precision

Engine = Literal["local", "ray"]
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
        for name, value, known in (
            ("engine", self.engine, get_args(Engine)),
            ("precision", self.precision, get_args(Precision)),
        ):
            if value not in known:
                raise InvalidArgumentError(
                    f"{name} must be one of {', '.join(known)}, got {value!r}"
                )
        if self.rows_per_part < 1:
            raise InvalidArgumentError(
                f"rows_per_part must be at least 1, got {self.rows_per_part}"
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
    folder = _folder(out, shard)
    inputs = Inputs(
        bundle=bundle.version,
        table=fingerprint(items),
        images_root=str(root),
        precision=options.precision,
        rows_per_part=options.rows_per_part,
    )
    parts = find_parts(folder, inputs) or _begin(folder, inputs, items)
    if not parts.of(shard):
        raise InvalidArgumentError(
            f"shard must be one of {len(parts.of(WHOLE))}, as many as the table has parts of "
            f"{options.rows_per_part} rows, got {shard.index}/{shard.count}"
        )
    if missing := parts.missing(shard):
        if not parts.table.exists():
            copy_table(items, parts.table, options.rows_per_part)
        repeated = repeated_rows(parts.table)
        job = Job(bundle.path, parts, repeated, root, options.device, options.precision)
        ENGINES[options.engine](job, missing, _reporter(parts, shard, progress))
    return _finish(parts, shard, out)


def _folder(out: Path, shard: Shard) -> Path:
    """Return the folder for the parts of ``out``."""
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


def _begin(folder: Path, inputs: Inputs, items: Source) -> Parts:
    table = Parts(folder, inputs.rows_per_part, 0).table
    return begin_parts(folder, inputs, copy_table(items, table, inputs.rows_per_part))


def _embed_here(job: Job, missing: Iterable[int], done: Callable[[int], None]) -> None:
    worker = build_worker(job)
    for part in missing:
        worker(part)
        done(part)


ENGINES: dict[Engine, Callable[[Job, Sequence[int], Callable[[int], None]], None]] = {
    "local": _embed_here,
    "ray": embed_on_ray,
}


def _reporter(parts: Parts, shard: Shard, progress: Progress | None) -> Callable[[int], None]:
    """Return the function to call with the number of each finished part."""
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
        DataError: If the parts are the whole table and hold no item.
    """
    numbers = parts.of(shard)
    files = [parts.embeddings(part) for part in numbers]
    bad = [path for part in numbers if (path := parts.quarantine(part)).exists()]
    embedded = Embedded(
        n_rows=sum(parts.count_rows(part) for part in numbers),
        n_items=int(pl.scan_parquet(files, glob=False).select(pl.len()).collect().item()),
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
        pl.scan_parquet(files, glob=False).sink_parquet(scratch)


def _count_rules(files: list[Path]) -> dict[str, int]:
    if not files:
        return {}
    counts = pl.scan_parquet(files, glob=False).group_by("rule").len()
    return dict(counts.sort("len", "rule", descending=[True, False]).collect().iter_rows())
