"""Read the embeddings of another model, for the fusion to learn similarities from."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.errors import DataError

Floats = NDArray[np.float32]


def load_teacher(path: str | Path | None, item_ids: Sequence[str]) -> Floats:
    """Return the teacher's embedding of each item (N, D_t), zeros where it has none.

    Args:
        path: Parquet file, or folder of parts, with ``id`` and ``embedding``, as `recsys embed`
            writes; None for no teacher, D_t = 0.
        item_ids: The catalogue's N items.

    Raises:
        DataError: If it cannot be read, lacks a column, its embeddings differ in size or are not
            finite, or it has none of the items.
    """
    if path is None:
        return np.zeros((len(item_ids), 0), dtype=np.float32)
    table = _read(Path(path)).unique("id", keep="first")
    wanted = pl.DataFrame({"id": item_ids}).with_row_index("row")
    found = wanted.join(table, on="id", how="inner").sort("row")
    if found.is_empty():
        raise DataError(f"teacher must have items of the catalogue, {path} has none of them")
    sizes = found["embedding"].list.len().unique().to_list()
    if len(sizes) != 1 or not sizes[0]:
        raise DataError(f"teacher must have embeddings of one size, got sizes {sizes} in {path}")
    vectors = np.array(found["embedding"].to_list(), dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise DataError(f"teacher must have finite embeddings, got others in {path}")
    spread = np.zeros((len(item_ids), vectors.shape[1]), dtype=np.float32)
    spread[found["row"].to_numpy()] = vectors
    return spread


def _read(path: Path) -> pl.DataFrame:
    source = path / "part-*.parquet" if path.is_dir() else path
    try:
        table = pl.scan_parquet(source)
        columns = table.collect_schema()
        missing = [name for name in ("id", "embedding") if name not in columns]
        if missing:
            raise DataError(f"teacher must have columns id and embedding, {path} lacks {missing}")
        return table.select(
            pl.col("id").cast(pl.String), pl.col("embedding").cast(pl.List(pl.Float32))
        ).collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"teacher must be Parquet of id and embedding, got {path}: {error}"
        ) from error
