"""What a shop itself says of pairs of items, as neighbours of each item."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from recsys.data.arrays import Floats, Ints
from recsys.ranking.baselines import strongest_entries
from recsys.schema import ONE_WAY_KINDS, RELATION_KINDS

logger = logging.getLogger(__name__)

# Relations of one kind that an item keeps: a set of thousands of parts would fill the memory.
MOST_RELATED = 100


class Related(NamedTuple):
    """Items that somebody who has an item may want, by each of R ``RELATION_KINDS``.

    Args:
        rows: Item rows of each item, strongest first, int32 (R, N, K); -1 is padding.
        weights: Weights of these relations (R, N, K); 0 on padding.
    """

    rows: NDArray[np.int32]
    weights: Floats


_EMPTY = (len(RELATION_KINDS), 0, 0)
NO_RELATIONS = Related(np.empty(_EMPTY, dtype=np.int32), np.empty(_EMPTY, dtype=np.float32))


def related_items(
    relations: pl.DataFrame | None, item_ids: Sequence[str], *, most: int = MOST_RELATED
) -> Related:
    """Return the related items of every item; ``NO_RELATIONS`` without a table.

    A relation leads from each of its two items to the other; one of ``ONE_WAY_KINDS`` leads from
    right to left only.

    Args:
        relations: Valid table of ``RelationSchema``, or None.
        item_ids: Catalogue in row order (N).
        most: Number of relations that an item keeps of each kind, the heaviest. A warning says how
            many items have more.
    """
    if relations is None:
        return NO_RELATIONS
    left, right = (_rows_of(relations[side], item_ids) for side in ("left", "right"))
    weights = relations["weight"].to_numpy().astype(np.float32)
    found = []
    for kind in RELATION_KINDS:
        one = (relations["kind"] == kind).to_numpy()
        matrix = sparse.csr_matrix(
            (weights[one], (right[one], left[one])), shape=2 * (len(item_ids),)
        )
        if kind not in ONE_WAY_KINDS:
            matrix += matrix.T
        _warn_of_many(kind, matrix, item_ids, most)
        found.append(strongest_entries(matrix, most))
    width = max(rows.shape[1] for rows, _ in found)
    missing = [((0, 0), (0, width - rows.shape[1])) for rows, _ in found]
    both = list(zip(found, missing, strict=True))
    return Related(
        rows=np.stack([np.pad(rows, pads, constant_values=-1) for (rows, _), pads in both]),
        weights=np.stack([np.pad(values, pads) for (_, values), pads in both]),
    )


def _rows_of(ids: pl.Series, item_ids: Sequence[str]) -> Ints:
    rows = np.arange(len(item_ids), dtype=np.int64)
    found: Ints = ids.replace_strict(item_ids, rows, return_dtype=pl.Int64).to_numpy()
    return found


def _warn_of_many(
    kind: str, matrix: "sparse.csr_matrix", item_ids: Sequence[str], most: int
) -> None:
    counts = np.diff(matrix.indptr)
    if (counts > most).any():
        logger.warning(
            "%d items have more than %d relations of the kind %s, such as %s with %d; the heaviest "
            "of them count",
            (counts > most).sum(),
            most,
            kind,
            item_ids[int(counts.argmax())],
            counts.max(),
        )
