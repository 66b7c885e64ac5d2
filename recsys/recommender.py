"""Answer from a bundle: recommend, rank, find similar items, search."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.answers import SearchMode
from recsys.bundle import Bundle
from recsys.catalogue.filters import Filters
from recsys.catalogue.search import CatalogueSearch, query_parts
from recsys.catalogue.store import Catalogue
from recsys.catalogue.vectors import EXACT_UP_TO, Nearest
from recsys.data.arrays import Ints
from recsys.data.interactions import EMPTY_HISTORY, History
from recsys.errors import InvalidArgumentError
from recsys.ranking.features import ItemTable, build_item_table, refresh_item_table
from recsys.ranking.scoring import Scores
from recsys.ranking.statistics import build_statistics

MAX_K = 500
# A catalogue up to this size is ranked whole. Beyond it each source offers its best rows.
RANK_ALL_ITEMS = 5_000
OFFERS_PER_SOURCE = 500


class Event(NamedTuple):
    """Something a user did with an item, as callers name them."""

    item_id: str
    kind: str
    timestamp_us: int


class Scored(NamedTuple):
    """One result: higher scores come first; scores of different calls do not compare."""

    item_id: str
    score: float
    source: str
    features: tuple[tuple[str, float], ...] = ()


class Recommender:
    """Recommends and searches over a bundle's catalogue, which may grow while it answers.

    Not safe for use from several threads at once; the service gives it a thread of its own.

    Args:
        bundle: A verified bundle.
        device: Where the embedding table and the networks live.
        as_of_us: Forget every event at or after this moment, for offline evaluation.
        exact_up_to: Catalogues up to this size are searched exactly, larger ones by a graph once
            ``prepare_search`` has built it (``recsys.catalogue.vectors``).
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "cpu",
        as_of_us: int | None = None,
        exact_up_to: int = EXACT_UP_TO,
    ) -> None:
        self.bundle = bundle
        self.version = bundle.version
        self.parts = bundle.parts
        self.device = device
        self.catalogue = Catalogue(bundle.items, bundle.item_embeddings, device=device)
        self.embedder = bundle.embedder(device=device)
        self._search = CatalogueSearch(self.catalogue, exact_up_to=exact_up_to)
        self._histories: dict[str, History] = {}
        self._table: ItemTable | None = None
        if "ranking" in self.parts:
            self._load_ranking(as_of_us)

    def history(self, user_id: str, live: Sequence[Event] = ()) -> History:
        """Return the user's events of the bundle and the live ones, oldest first.

        A live event that the bundle has, or that is told twice, counts once; events that the
        bundle itself repeats are as in training. Live events of unknown items or kinds are left
        out; an unknown user has the live events alone.
        """
        known = self._histories.get(user_id, EMPTY_HISTORY)
        kinds = {name: code for code, name in enumerate(self.kind_names)}
        told = {
            (self.catalogue.row_of[event.item_id], kinds[event.kind], event.timestamp_us)
            for event in live
            if event.item_id in self.catalogue.row_of and event.kind in kinds
        }
        bundled = list(zip(*(column.tolist() for column in known), strict=True))
        fresh = told.difference(bundled)
        if not fresh:
            return known
        # The order of ``build_interactions``, where events of one moment are ordered, too.
        ids = self.catalogue.item_ids
        ordered = sorted([*bundled, *fresh], key=lambda event: (event[2], ids[event[0]], event[1]))
        return History(*np.ascontiguousarray(np.array(ordered).T))

    @property
    def kind_names(self) -> Sequence[str]:
        """Event kinds that the user encoder knows."""
        return self.bundle.interactions.kind_names if "ranking" in self.parts else ()

    def recommend(
        self,
        history: History,
        *,
        k: int,
        now_us: int,
        filters: Filters = Filters(),
        exclude: Collection[str] = (),
        exclude_seen: bool = False,
        explain: bool = False,
    ) -> list[Scored]:
        """Return the ``k`` items to show the user, best first; fewer when fewer pass the filters.

        Args:
            history: From ``history``; an empty one is a newcomer.
            k: How many.
            now_us: The moment of the request, microseconds UTC.
            filters: Which items may be answered.
            exclude: Items not to answer.
            exclude_seen: Leave out items of the history.
            explain: Name the features that raised each score most.

        Raises:
            InvalidArgumentError: If ``k`` is out of range.
            MissingPartError: If the bundle was trained without events.
        """
        check_k(k)
        self.bundle.require("ranking")
        mask = self.catalogue.mask(filters, now_us=now_us)
        mask[[self.catalogue.row_of[item] for item in exclude if item in self.catalogue]] = False
        if exclude_seen:
            mask[history.item_rows] = False
        rows = self._offers(history, mask, now_us)
        if len(rows) == 0:
            return []
        result = self._score(history, rows, now_us)
        top = result.scores.topk(min(k, len(rows))).indices
        return self._answer(
            rows[top.cpu()], Scores(*(part[top] for part in result)), history, explain
        )

    def rank(
        self, history: History, item_ids: Sequence[str], *, now_us: int, explain: bool = False
    ) -> list[Scored]:
        """Return the caller's candidates, best first.

        Raises:
            UnknownItemError: If a candidate is not in the catalogue.
            InvalidArgumentError: If there are none.
        """
        if not item_ids:
            raise InvalidArgumentError("item_ids must name at least one candidate, got none")
        self.bundle.require("ranking")
        rows = torch.from_numpy(self.catalogue.rows(item_ids))
        result = self._score(history, rows, now_us)
        order = result.scores.argsort(descending=True, stable=True)
        picked = Scores(*(part[order] for part in result))
        return self._answer(rows[order.cpu()], picked, history, explain)

    def scores(self, history: History, now_us: int) -> Tensor:
        """Return the score of every row for one user (N,), as offline evaluation wants it."""
        return self._score(history, torch.arange(len(self.catalogue)), now_us).scores

    def similar(self, item_id: str, *, k: int, filters: Filters = Filters()) -> list[Scored]:
        """Return the ``k`` items closest to an item, which is itself left out.

        To an item without title and picture nothing is close.

        Raises:
            UnknownItemError: If the item is not in the catalogue.
        """
        check_k(k)
        row = int(self.catalogue.rows([item_id])[0])
        if not self.catalogue.embedded[row]:
            return []
        mask = self.catalogue.mask(filters)
        mask[row] = False
        found = self._search.by_vector(self.catalogue.embeddings[row], mask, k)
        return self._found(found, "similar")

    def search(
        self,
        text: str | None = None,
        image: bytes | None = None,
        *,
        k: int,
        filters: Filters = Filters(),
        mode: SearchMode = "hybrid",
    ) -> list[Scored]:
        """Return the ``k`` items that answer words, a picture, or both ("this, but in blue").

        Args:
            text: Words, in any language that the text encoder knows.
            image: A picture's bytes.
            k: How many; fewer come back only where fewer pass the filters and can be compared.
            filters: Which items may be answered.
            mode: "vector" compares embeddings, "lexical" words with the items' own words, and
                "hybrid" does both, as far as words are given.

        Raises:
            InvalidArgumentError: If both are empty, or the mode is lexical without words or with a
                picture.
            InvalidImageError: If the bytes are no picture we accept.
            MissingPartError: If the bundle has no encoder for what was asked.
        """
        check_k(k)
        embeddings = [self.embedder.query(*part) for part in query_parts(text, image, mode)]
        return self.search_embedded(text, embeddings, k=k, filters=filters, mode=mode)

    def search_embedded(
        self,
        text: str | None,
        embeddings: Sequence[NDArray[np.float32]],
        *,
        k: int,
        filters: Filters = Filters(),
        mode: SearchMode = "hybrid",
    ) -> list[Scored]:
        """Return what ``search`` does, where the parts of the query are embedded already.

        Args:
            text: The query's words.
            embeddings: Of each of ``recsys.catalogue.search.query_parts`` (D,).
            k: How many.
            filters: Which items may be answered.
            mode: As for ``search``.
        """
        vectors = [torch.from_numpy(one).to(self.device) for one in embeddings]
        mask = self.catalogue.mask(filters)
        return self._found(self._search.search(text, vectors, mask, k, mode), "search")

    def prepare_search(self) -> None:
        """Index the catalogue for many queries, which a single one is not worth.

        The first search by words would index them otherwise. A catalogue on the CPU of more than
        ``exact_up_to`` items gets its graph here.
        """
        self._search.prepare()

    def upsert(self, items: pl.DataFrame, embeddings: NDArray[np.float32]) -> None:
        """Add or replace items with embeddings (B, D) from ``embedder.items``."""
        self.catalogue.upsert(items, embeddings)
        self._search.update(self.catalogue.rows(items["item_id"]).tolist())
        if self._table is not None:
            self._table = refresh_item_table(self._table, self.catalogue)

    def delete(self, item_ids: Collection[str]) -> int:
        """Stop answering the items and return how many were there."""
        rows = self.catalogue.rows(
            item_id for item_id in set(item_ids) if item_id in self.catalogue
        )
        self.catalogue.delete(item_ids)
        self._search.update(rows.tolist())
        return len(rows)

    def _load_ranking(self, as_of_us: int | None) -> None:
        interactions = self.bundle.interactions
        statistics = self.bundle.statistics
        if as_of_us is not None:
            interactions = interactions.before(as_of_us)
            statistics = build_statistics(interactions, as_of_us)
        self._histories = dict(zip(interactions.user_ids, interactions.histories(), strict=True))
        self._ranker = self.bundle.user_ranker
        self._ranker.encoder.to(self.device)
        self._ranker.ranker.to(self.device)
        target_kinds = torch.tensor(
            [name in self.bundle.target_kinds for name in interactions.kind_names]
        )
        self._table = build_item_table(self.catalogue, statistics, target_kinds)

    def _score(self, history: History, rows: Tensor, now_us: int) -> Scores:
        self.bundle.require("ranking")
        assert self._table is not None, "the ranking part is loaded with its table"
        return self._ranker.score(history, rows.to(self.device), now_us, self._table)

    def _offers(self, history: History, mask: NDArray[np.bool_], now_us: int) -> Tensor:
        """Return the rows worth ranking (C,): all under the mask, or the best of each source."""
        rows: Ints = np.flatnonzero(mask)
        if len(rows) <= RANK_ALL_ITEMS:
            return torch.from_numpy(rows)
        assert self._table is not None, "the ranking part is loaded with its table"
        table = self._table
        user_vector = self._ranker.user_vector(history, now_us, table)
        neighbours, _ = table.neighbours(torch.from_numpy(np.unique(history.item_rows)))
        allowed = torch.from_numpy(rows).to(self.device)

        def first(values: Tensor) -> Tensor:
            n_offers = min(OFFERS_PER_SOURCE, len(allowed))
            return allowed[values[allowed].topk(n_offers).indices]

        offered = torch.cat(
            [
                self._search.by_vector(user_vector, mask, OFFERS_PER_SOURCE).rows.to(self.device),
                neighbours[neighbours >= 0],
                torch.from_numpy(history.item_rows).to(self.device),
                first(table.popularity[:, 1]),
                first(table.created_us),
            ]
        ).unique()
        rows_offered: Tensor = offered.cpu()
        return rows_offered[torch.from_numpy(mask)[rows_offered]]

    def _found(self, found: Nearest, source: str) -> list[Scored]:
        ids = self.catalogue.item_ids
        return [
            Scored(ids[row], score, source)
            for row, score in zip(found.rows.tolist(), found.scores.tolist(), strict=True)
        ]

    def _answer(
        self, rows: Tensor, result: Scores, history: History, explain: bool
    ) -> list[Scored]:
        features = self._ranker.top_features(result.features) if explain else [()] * len(rows)
        return [
            Scored(self.catalogue.item_ids[row], score, self._source(row, history), reasons)
            for row, score, reasons in zip(
                rows.tolist(), result.scores.tolist(), features, strict=True
            )
        ]

    def _source(self, row: int, history: History) -> str:
        """Return what speaks for an item, in one word."""
        assert self._table is not None, "the ranking part is loaded with its table"
        if len(history.item_rows) == 0:
            return "popular" if float(self._table.popularity[row, 0]) > 0 else "new"
        if row in history.item_rows:
            return "own_history"
        return "new" if float(self._table.popularity[row, 0]) == 0 else "taste"


def check_k(k: int) -> None:
    """Raise if ``k`` is not a number of results that we answer.

    Raises:
        InvalidArgumentError: Names the bounds.
    """
    if not 1 <= k <= MAX_K:
        raise InvalidArgumentError(f"k must be between 1 and {MAX_K}, got {k}")
