"""The embeddings of another model, for the fusion to learn similarities from."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.arrays import Floats
from recsys.errors import DataError
from recsys.training.stages import hash_files


class Teacher:
    """A table of embeddings by item id, read when it is first needed and only once.

    Args:
        path: Parquet file, or folder of parts, with ``id`` and ``embedding``, as `recsys embed`
            writes; None for no teacher.
        item_ids: Ids of the catalogue's N items, in row order.

    Raises:
        DataError: If the path does not exist, is not Parquet or lacks a column.
    """

    def __init__(self, path: str | Path | None, item_ids: Sequence[str]) -> None:
        self._path = None if path is None else Path(path)
        if self._path is not None:
            _check_columns(self._path)
        self._item_ids = item_ids

    @cached_property
    def key(self) -> str:
        """Hash of the files; an empty string without a teacher."""
        return "" if self._path is None else hash_files(str(self._path))

    @cached_property
    def embeddings(self) -> Floats:
        """The teacher's embedding of each item (N, D_t), zeros for items that it lacks.

        D_t is 0 without a teacher.

        Raises:
            DataError: If the table cannot be read, lacks a column, has embeddings of several sizes
                or that are not finite, or has none of the items.
        """
        if self._path is None:
            return np.zeros((len(self._item_ids), 0), dtype=np.float32)
        rows, vectors = _matched(_read(self._path), self._item_ids, self._path)
        spread = np.zeros((len(self._item_ids), vectors.shape[1]), dtype=np.float32)
        spread[rows] = vectors
        return spread


def _matched(
    table: pl.DataFrame, item_ids: Sequence[str], path: Path
) -> tuple[NDArray[np.uint32], Floats]:
    """Return the rows (n,) of the items in the table, and their embeddings (n, D_t)."""
    wanted = pl.DataFrame({"id": item_ids}).with_row_index("row")
    found = wanted.join(table.unique("id", keep="first"), on="id", how="inner").sort("row")
    if found.is_empty():
        raise DataError(f"teacher must have items of the catalogue, {path} has none of them")
    sizes = found["embedding"].list.len().unique().to_list()
    if len(sizes) != 1 or not sizes[0]:
        raise DataError(f"teacher must have embeddings of one size, got sizes {sizes} in {path}")
    vectors = np.array(found["embedding"].to_list(), dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise DataError(f"teacher must have finite embeddings, got others in {path}")
    return found["row"].to_numpy(), vectors


def _check_columns(path: Path) -> None:
    """Raise unless there is a table with the columns ``id`` and ``embedding``."""
    # The hash of a missing file is that of no teacher, so it would be ignored.
    if not path.exists():
        raise DataError(f"teacher must be an existing file or folder, got {path}")
    with _reading(path):
        columns = pl.read_parquet_schema(_files(path)[0])
    missing = [name for name in ("id", "embedding") if name not in columns]
    if missing:
        raise DataError(f"teacher must have columns id and embedding, {path} lacks {missing}")


def _read(path: Path) -> pl.DataFrame:
    """Return the columns ``id`` and ``embedding`` of a Parquet file or of a folder's parts."""
    with _reading(path):
        return (
            pl.scan_parquet(_files(path), glob=False)
            .select(pl.col("id").cast(pl.String), pl.col("embedding").cast(pl.List(pl.Float32)))
            .collect()
        )


def _files(path: Path) -> list[Path]:
    files = sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"teacher must be a folder with part-*.parquet, {path} has none")
    return files


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"teacher must be Parquet of id and embedding, got {path}: {error}"
        ) from error
