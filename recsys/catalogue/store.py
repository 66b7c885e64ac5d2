"""The live catalogue: items by dense row, which may be added, replaced and deleted."""

from collections.abc import Collection, Iterable, Sequence
from itertools import count
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.answers import CATEGORY_LEVELS
from recsys.catalogue.filters import Filters
from recsys.data.ids import trim_id
from recsys.errors import InvalidArgumentError, UnknownItemError
from recsys.schema import MAX_AMOUNT, ItemSchema

_NEVER_US = np.iinfo(np.int64).min

FilterValue = tuple[str, tuple[str, ...]]  # a category's prefix, or an attribute and its value


def category_codes(
    paths: Sequence[Sequence[str]], codes: dict[tuple[str, ...], int] | None = None
) -> NDArray[np.int64]:
    """Return the codes of the prefixes of category paths (n, CATEGORY_LEVELS).

    Two paths have the same code at a level if they agree down to that level; -1 stands where a
    path has ended.

    Args:
        paths: Category paths, coarse to fine (n).
        codes: Codes given before; new prefixes are added to it.
    """
    codes = {} if codes is None else codes
    coded = np.full((len(paths), CATEGORY_LEVELS), -1, dtype=np.int64)
    for row, path in enumerate(paths):
        for level in range(min(len(path), CATEGORY_LEVELS)):
            coded[row, level] = codes.setdefault(tuple(path[: level + 1]), len(codes))
    return coded


class Catalogue:
    """Items in row order, with arrays of the values that ranking and filters read.

    An item keeps its row. A deleted item keeps it as well, and is never returned.

    Args:
        items: Validated table of ``ItemSchema``, in row order (N rows).
        embeddings: Fused item embeddings, float32 (N, D), unit length or zero.
        device: Device of the embedding table.

    Raises:
        InvalidArgumentError: If the numbers of items and embeddings differ.
    """

    def __init__(
        self, items: pl.DataFrame, embeddings: NDArray[np.float32], *, device: str = "cpu"
    ) -> None:
        if len(items) != len(embeddings):
            raise InvalidArgumentError(
                f"embeddings must have one row per item ({len(items)}), got {len(embeddings)}"
            )
        self.device = device
        self._items = items
        self._live: dict[int, dict[str, Any]] = {}  # records upserted after the bundle was made
        self._prefix_codes: dict[tuple[str, ...], int] = {}
        self._having: dict[FilterValue, set[int]] = {}  # inverted index for the filters
        self._sets_of: list[list[set[int]]] = []  # sets of the index that contain each row
        self.item_ids: list[str] = []
        self.row_of: dict[str, int] = {}
        self._embeddings = torch.zeros(0, embeddings.shape[1], device=device)
        self._prices = np.empty(0, dtype=np.float32)
        self._categories = np.empty((0, CATEGORY_LEVELS), dtype=np.int64)
        self._created_us = np.empty(0, dtype=np.int64)
        self._available = np.empty(0, dtype=np.bool_)
        self._deleted = np.empty(0, dtype=np.bool_)
        self._embedded = np.empty(0, dtype=np.bool_)
        self._revisions = np.empty(0, dtype=np.int64)
        self._reserve(len(items))
        self._write(range(len(items)), items, torch.tensor(embeddings))

    def __len__(self) -> int:
        return len(self.item_ids)

    def __contains__(self, item_id: object) -> bool:
        row = self.find(item_id)
        return row is not None and not self._deleted[row]

    def find(self, item_id: object) -> int | None:
        """Return the row of an item, also of a deleted one; None if it was never there.

        Blanks around an id are cut off, as they are in tables.
        """
        if not isinstance(item_id, str):
            return None
        row = self.row_of.get(item_id)
        return self.row_of.get(trim_id(item_id)) if row is None else row

    @property
    def dim(self) -> int:
        """Embedding size D."""
        return self._embeddings.shape[1]

    @property
    def embeddings(self) -> Tensor:
        """Item embeddings (N, D) on the device."""
        return self._embeddings[: len(self)]

    @property
    def embedded(self) -> NDArray[np.bool_]:
        """Which items have an embedding and are not deleted, bool (N,)."""
        return self._embedded[: len(self)]

    @property
    def revisions(self) -> NDArray[np.int64]:
        """How often each row was written (N,), from 1; an index sees by it what has changed."""
        return self._revisions[: len(self)]

    @property
    def prices(self) -> NDArray[np.float32]:
        """Prices (N,), NaN where unknown."""
        return self._prices[: len(self)]

    @property
    def categories(self) -> NDArray[np.int64]:
        """Codes of the category path's prefixes (N, CATEGORY_LEVELS), -1 where the path ends."""
        return self._categories[: len(self)]

    @property
    def n_categories(self) -> int:
        """Number of distinct category prefixes seen."""
        return len(self._prefix_codes)

    @property
    def created_us(self) -> NDArray[np.int64]:
        """Creation times, microseconds UTC (N,); the smallest integer where unknown."""
        return self._created_us[: len(self)]

    def rows(self, item_ids: Iterable[str]) -> NDArray[np.int64]:
        """Return the rows of the items (K,), in the order of ``item_ids``.

        Raises:
            UnknownItemError: If an item is not in the catalogue; the message names the first few.
        """
        item_ids = list(item_ids)
        unknown = [item_id for item_id in item_ids if item_id not in self]
        if unknown:
            raise UnknownItemError(
                f"item_id must be in the catalogue of {len(self)} items, got unknown "
                f"{unknown[:5]}; add an item before using it"
            )
        return np.array([self.find(item_id) for item_id in item_ids], dtype=np.int64)

    def mask(
        self, filters: Filters, *, now_us: int | None = None, exclude: Iterable[str] = ()
    ) -> NDArray[np.bool_]:
        """Return which rows pass the filters and are not deleted, bool (N,).

        Args:
            filters: Conditions on the items.
            now_us: Moment in microseconds UTC after which created items are left out; None keeps
                them.
            exclude: Ids of items to leave out; unknown ones are ignored.
        """
        mask = ~self._deleted[: len(self)]
        left_out = [self.find(item_id) for item_id in exclude]
        mask[[row for row in left_out if row is not None]] = False
        if filters.available_only:
            mask &= self._available[: len(self)]
        if now_us is not None:
            mask &= self.created_us <= now_us
        if filters.price_min is not None:
            mask &= self.prices >= filters.price_min
        if filters.price_max is not None:
            mask &= self.prices <= filters.price_max
        wanted: list[FilterValue] = [("attribute", pair) for pair in filters.attributes.items()]
        if filters.category:
            wanted.append(("category", tuple(filters.category)))
        for key in wanted:
            having = np.zeros(len(self), dtype=np.bool_)
            having[list(self._having.get(key, ()))] = True
            mask &= having
        return mask

    def filter_values(self) -> Collection[FilterValue]:
        """Return every prefix of a category path and every attribute that an item has."""
        return [value for value, having in self._having.items() if having]

    def records(self, item_ids: Sequence[str]) -> pl.DataFrame:
        """Return the items as a table of ``ItemSchema``, in the order of ``item_ids``.

        Raises:
            UnknownItemError: If an item is not in the catalogue.
        """
        return self.at(self.rows(item_ids).tolist())

    def at(self, rows: Sequence[int]) -> pl.DataFrame:
        """Return items by row, deleted ones as well, as a table of ``ItemSchema``."""
        live = [self._live[row] for row in rows if row in self._live]
        bundled = self._items[[row for row in rows if row not in self._live]]
        found = pl.concat([bundled, pl.DataFrame(live, schema=self._items.schema)])
        place = {item_id: place for place, item_id in enumerate(found["item_id"])}
        return found[[place[self.item_ids[row]] for row in rows]]

    def upsert(self, items: pl.DataFrame, embeddings: NDArray[np.float32]) -> None:
        """Add or replace items.

        Args:
            items: Table of ``ItemSchema`` (K rows).
            embeddings: Embeddings of the items (K, D).

        Raises:
            InvalidArgumentError: If an item occurs twice, or the embeddings have another shape.
        """
        if embeddings.shape != (len(items), self.dim):
            raise InvalidArgumentError(
                f"embeddings must have shape {(len(items), self.dim)}, got {embeddings.shape}"
            )
        if items["item_id"].is_duplicated().any():
            raise InvalidArgumentError(
                "item_id must be unique within one call, got a repeated item_id"
            )
        items = ItemSchema.cast(items)
        fresh, known = count(len(self)), self.row_of
        rows = [known[one] if one in known else next(fresh) for one in items["item_id"]]
        self._reserve(max(rows, default=-1) + 1)
        self._write(rows, items, torch.tensor(embeddings))
        self._live.update(zip(rows, items.iter_rows(named=True), strict=True))

    def delete(self, item_ids: Iterable[str]) -> int:
        """Delete items and return how many were there; unknown ids are ignored."""
        found = {self.find(item_id) for item_id in item_ids}
        rows = [row for row in found if row is not None and not self._deleted[row]]
        self._deleted[rows] = True
        self._embedded[rows] = False
        return len(rows)

    def _reserve(self, size: int) -> None:
        """Make room for ``size`` rows; the room at least doubles, so many upserts stay cheap."""
        capacity = len(self._prices)
        if size <= capacity:
            return
        more = max(size, 2 * capacity) - capacity
        self._embeddings = torch.cat([self._embeddings, self._embeddings.new_zeros(more, self.dim)])
        self._prices = np.append(self._prices, np.full(more, np.nan, dtype=np.float32))
        empty = np.full((more, CATEGORY_LEVELS), -1, dtype=np.int64)
        self._categories = np.concatenate([self._categories, empty])
        self._created_us = np.append(self._created_us, np.full(more, _NEVER_US, dtype=np.int64))
        self._available = np.append(self._available, np.zeros(more, dtype=np.bool_))
        self._deleted = np.append(self._deleted, np.zeros(more, dtype=np.bool_))
        self._embedded = np.append(self._embedded, np.zeros(more, dtype=np.bool_))
        self._revisions = np.append(self._revisions, np.zeros(more, dtype=np.int64))

    def _write(self, rows: Sequence[int], items: pl.DataFrame, embeddings: Tensor) -> None:
        rows = list(rows)
        for row, item_id in zip(rows, items["item_id"], strict=True):
            if row == len(self.item_ids):
                self.item_ids.append(item_id)
                self._sets_of.append([])
            self.row_of[item_id] = row
        self._embeddings[rows] = embeddings.to(self.device)
        self._embedded[rows] = embeddings.any(dim=1).numpy()
        # Bundles and live records of earlier releases may have larger prices, as placeholders.
        prices = items.select(pl.when(pl.col("price") <= MAX_AMOUNT).then("price"))["price"]
        self._prices[rows] = prices.cast(pl.Float32).fill_null(float("nan")).to_numpy()
        created_us = items["created_at"].dt.timestamp("us").fill_null(_NEVER_US)
        self._created_us[rows] = created_us.to_numpy()
        self._available[rows] = items["available"].to_numpy()
        self._deleted[rows] = False
        self._revisions[rows] += 1
        paths: list[list[str]] = items["category"].to_list()
        self._categories[rows] = category_codes(paths, self._prefix_codes)
        for row, path, pairs in zip(rows, paths, items["attributes"], strict=True):
            keys: list[FilterValue] = [
                ("category", tuple(path[:end])) for end in range(1, len(path) + 1)
            ]
            keys += [("attribute", (pair["key"], pair["value"])) for pair in pairs]
            self._index(row, keys)

    def _index(self, row: int, keys: Iterable[FilterValue]) -> None:
        """Add a row to the sets of these keys, and remove it from those of the replaced item."""
        for having in self._sets_of[row]:
            having.discard(row)
        self._sets_of[row] = [self._having.setdefault(key, set()) for key in keys]
        for having in self._sets_of[row]:
            having.add(row)
