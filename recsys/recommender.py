"""Answer from a bundle: recommend, rank, find similar items, search."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from recsys.answers import (
    Added,
    Annotation,
    Answer,
    Deleted,
    Event,
    Item,
    Result,
    SearchMode,
    check_k,
    list_ids,
)
from recsys.bundle import Bundle
from recsys.catalogue.additions import Picture, read_image, read_items, read_pictures
from recsys.catalogue.embedder import check_device
from recsys.catalogue.filters import Filters
from recsys.catalogue.search import CatalogueSearch, query_parts
from recsys.catalogue.store import Catalogue
from recsys.catalogue.vectors import EXACT_UP_TO, Nearest
from recsys.data.arrays import Ints
from recsys.data.frames import Frame
from recsys.data.interactions import History, Moment
from recsys.data.timestamps import to_us
from recsys.errors import InvalidArgumentError
from recsys.identification.annotation import annotate_photo
from recsys.ranking.candidates import RANK_ALL_ITEMS, CandidateSource
from recsys.ranking.catalogue_ranker import CatalogueRanker
from recsys.ranking.histories import UserHistories
from recsys.ranking.requests import Request, answer_each
from recsys.rules import Rules
from vision.batches import ImageSource


class Recommender:
    """Recommends and searches over a bundle's catalogue, which may grow while it answers.

    >>> recommender = Recommender.load("runs/shop")
    >>> answer = recommender.recommend("user-17")
    >>> [result.item_id for result in answer]

    Use it from one thread at a time; the service gives it a thread of its own.

    Args:
        bundle: A verified bundle.
        device: Torch device of the embedding table and the networks, such as "cpu" or "cuda:1";
            "auto" is a card where there is one.
        as_of: Moment from which on events are forgotten, or that of each user, microseconds UTC;
            the ranker is then the one that learned from the events before the split only.
        exact_up_to: Largest catalogue that is searched exactly (``recsys.catalogue.vectors``).
        rank_all_up_to: Number of allowed items up to which ``recommend`` ranks all of them.
        offers: Items that a source offers beyond that, by its name; else as the bundle was trained.

    Raises:
        InvalidArgumentError: If this machine has no such device, or ``offers`` is wrong.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "cpu",
        as_of: Moment | None = None,
        exact_up_to: int = EXACT_UP_TO,
        rank_all_up_to: int = RANK_ALL_ITEMS,
        offers: Mapping[str, int] = {},
    ) -> None:
        self.bundle = bundle
        self.version, self.parts = bundle.version, bundle.parts
        self.device = check_device(device)
        self.catalogue = Catalogue(bundle.items, bundle.item_embeddings, device=self.device)
        self.embedder = bundle.embedder(device=self.device)
        self.index = CatalogueSearch(self.catalogue, bundle.picture_lines, exact_up_to=exact_up_to)
        self._candidates = CandidateSource(
            rank_all_up_to=rank_all_up_to, offers={**bundle.offers, **offers}
        )
        self._histories = UserHistories(self.catalogue, None)
        self._loaded_ranker: CatalogueRanker | None = None
        if "ranking" in self.parts:
            interactions, statistics, ranker = bundle.known_at(as_of)
            self._histories = UserHistories(self.catalogue, interactions)
            kinds = {one: one in bundle.target_kinds for one in interactions.kind_names}
            parts = self.catalogue, ranker, self._candidates, statistics, kinds, bundle.rules
            self._loaded_ranker = CatalogueRanker(*parts, bundle.choice)

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> Self:
        """Return a recommender over a bundle on disk, or over the latest in a folder of bundles."""
        return cls(Bundle(path), device=device)

    @property
    def kind_names(self) -> Sequence[str]:
        """Event kinds that the user encoder knows."""
        return self._histories.kind_names

    def history(self, user_id: str, events: Iterable[Event] = ()) -> History:
        """Return the user's events of the bundle and of ``events``, each once, oldest first.

        >>> seen = [Event("user-17", "item-0042", "view")]
        >>> recommender.recommend(recommender.history("user-17", seen))

        Args:
            user_id: The caller's id; an unknown user has the passed events alone.
            events: Events since the bundle was trained; without a timestamp they happen now. Those
                of other users, and of unknown items and kinds (logged once), are left out.
        """
        return self._histories.with_events(user_id, events)

    def recommend(
        self,
        user: str | History,
        k: int = 10,
        *,
        now: datetime | None = None,
        filters: Filters = Filters(),
        exclude: Collection[str] = (),
        exclude_seen: bool = False,
        explain: bool = False,
        rules: Rules | None = None,
    ) -> Answer:
        """Return the ``k`` items to show the user, best first; fewer when fewer pass the filters.

        >>> recommender.recommend("user-17", filters=Filters(price_max=50))[0].item_id

        Args:
            user: User id, or a history from ``history``; an unknown user gets popular or new items.
            k: Maximum number of results.
            now: Moment of the request, with a time zone; the time now if None.
            filters: Which items may be returned.
            exclude: Ids of items to leave out.
            exclude_seen: Whether items of the user's history are left out.
            explain: Whether results have reasons and the features that raised their scores most.
            rules: How the list is made, in place of the bundle's rules; None takes those.

        Raises:
            InvalidArgumentError: If an argument is out of range or of another kind, or ``now`` has
                no time zone.
            MissingPartError: If the bundle was trained without events.
            UnknownItemError: If ``rules`` names an item that is not in the catalogue.
        """
        request = Request(user, k, now, filters, exclude, exclude_seen, explain, rules)
        return self.recommend_each([request])[0]

    def recommend_each(self, requests: Sequence[Request]) -> list[Answer]:
        """Return what ``recommend`` would for each request, in as few passes as can be."""
        found = answer_each(requests, self.ranker, self.catalogue, self._histories)
        return [self._answer(one.results, one.degraded) for one in found]

    def recommend_many(
        self,
        users: Iterable[str],
        k: int = 10,
        *,
        now: datetime | None = None,
        filters: Filters = Filters(),
        exclude: Collection[str] = (),
        exclude_seen: bool = False,
        rules: Rules | None = None,
        block_size: int | None = None,
    ) -> pl.DataFrame:
        """Return what ``recommend`` would for each user, as one table; users are scored in blocks.

        The columns: user_id, rank (from 1), item_id, score, source, propensity, probability and
        degraded, null for a full list. Users come in the order given, and one given twice, twice.

        >>> table = recommender.recommend_many(["user-17", "user-18"], k=5)

        Args:
            users: User ids: a list, a column of polars or pandas, or any iterable.
            k: Maximum number of results for each user.
            now: Moment of all the requests; the time now if None.
            filters: Which items may be returned.
            exclude: Ids of items to leave out.
            exclude_seen: Whether items of a user's own history are left out.
            rules: As for ``recommend``; with a seed, the users of a call explore independently.
            block_size: Number of users scored at once, by default by the size of the catalogue.

        Raises:
            InvalidArgumentError: If ``block_size`` is below 1; other errors as for ``recommend``.
        """
        check_k(k)
        user_ids, now_us = list_ids("users", users), to_us("now", now)
        past = self._histories.find_each(user_ids)
        mask = self.catalogue.mask(filters, now_us=now_us, exclude=list_ids("exclude", exclude))
        table = self.ranker.at(now).best_table(
            past, k, block_size, now_us=now_us, mask=mask, exclude_seen=exclude_seen, rules=rules
        )
        ids = pl.Series("user_id", user_ids, dtype=pl.String)
        return table.select(ids.gather(table["user"]), pl.exclude("user"))

    def rank(
        self,
        user: str | History,
        item_ids: Sequence[str],
        *,
        now: datetime | None = None,
        explain: bool = False,
    ) -> Answer:
        """Return the caller's candidates, best first for a user.

        >>> recommender.rank("user-17", ["item-0042", "item-0007"])[0].item_id

        ``item_ids`` are the candidates; the other arguments are as for ``recommend``.

        Raises:
            UnknownItemError: If a candidate is not in the catalogue.
            InvalidArgumentError: If ``item_ids`` is empty, or as for ``recommend``.
            MissingPartError: If the bundle was trained without events.
        """
        candidates, ranker = list_ids("item_ids", item_ids), self.ranker.at(now)
        if not candidates:
            raise InvalidArgumentError("item_ids must name at least one candidate, got none")
        history, rows = self._histories.find(user), self.catalogue.rows(candidates)
        ranked = ranker.rank(history, rows, to_us("now", now))
        return self._answer(ranker.results(ranked, explain=explain), ranked.degraded)

    def scores(
        self,
        users: Iterable[str | History],
        *,
        now: datetime | Ints | None = None,
        mask: NDArray[np.bool_] | None = None,
        discovery: bool = False,
    ) -> NDArray[np.float32]:
        """Return each item's score for each user (U, N), in row order; errors as ``recommend``.

        Items that ``recommend`` would not rank have minus infinity.

        Args:
            users: User ids, or histories from ``history``.
            now: Moment of all the requests, or of each in microseconds UTC (U,); None is now.
            mask: Which rows of the catalogue may be ranked (N,); all if None.
            discovery: Whether the scores are for answers without the user's own items.
        """
        histories = self._histories.find_each(users)
        now_us = now if isinstance(now, np.ndarray) else to_us("now", now)
        return self.ranker.scores(histories, now_us, mask=mask, discovery=discovery)

    def similar(self, item_id: str, k: int = 10, *, filters: Filters = Filters()) -> Answer:
        """Return the ``k`` items closest to an item, but not itself; none if it has no embedding.

        Raises:
            UnknownItemError: If the item is not in the catalogue.
            InvalidArgumentError: If ``k`` is out of range.
        """
        check_k(k)
        row = int(self.catalogue.rows([item_id])[0])
        if not self.catalogue.embedded[row]:
            return self._answer([])
        mask = self.catalogue.mask(filters, exclude=[item_id])
        found = self.index.by_vector(self.catalogue.embeddings[row], mask, k)
        return self._found(found, "similar")

    def search(
        self,
        text: str | None = None,
        image: bytes | str | Path | None = None,
        k: int = 10,
        *,
        filters: Filters = Filters(),
        mode: SearchMode = "hybrid",
    ) -> Answer:
        """Return the ``k`` items that best answer words, an image, or both ("this, but in blue").

        >>> recommender.search("blue ceramic mug", k=5)
        >>> recommender.search("in blue", image="photo.jpg")

        Args:
            text: Words, in any language that the text encoder knows.
            image: Bytes or path of an image.
            k: Maximum number of results.
            filters: Which items may be returned.
            mode: "vector" compares embeddings, "lexical" words with the items' own words, and
                "hybrid" does both, as far as words are given.

        Raises:
            InvalidArgumentError: If both are empty, ``k`` is out of range, or the mode cannot be.
            InvalidImageError: If the bytes are not a readable image.
            FileAccessError: If the file cannot be read.
            MissingPartError: If the bundle has no encoder for what was asked.
        """
        check_k(k)
        parts = query_parts(text, read_image(image), mode)
        vectors = [self.embedder.query(*part) for part in parts]
        return self.search_embedded(text, vectors, k, filters=filters, mode=mode)

    def search_embedded(
        self,
        text: str | None,
        embeddings: Sequence[NDArray[np.float32] | torch.Tensor],
        k: int = 10,
        *,
        filters: Filters = Filters(),
        mode: SearchMode = "hybrid",
    ) -> Answer:
        """Return what ``search`` does with the same arguments, for a query embedded already.

        ``embeddings`` has the vector (D,) of each of ``recsys.catalogue.search.query_parts``.
        """
        vectors = [torch.as_tensor(one, device=self.device) for one in embeddings]
        mask = self.catalogue.mask(filters)
        return self._found(self.index.search(text, vectors, mask, k, mode), "search")

    def annotate(
        self, image: ImageSource, *, min_probability: float = 0.5, read_words: bool = False
    ) -> Annotation:
        """Return the category, attributes and colours of the product on a photo, and its words.

        ``image`` is bytes, a path or an opened image. Less probable guesses are left out.

        Raises:
            MissingPartError: If the bundle has no vision tower.
            InvalidImageError: If the photo is not a readable image.
            InvalidArgumentError: If ``min_probability`` is not from 0 to 1.
        """
        tower, reading, least = self.embedder.image_tower, self.bundle.reading, min_probability
        found = annotate_photo(tower, image, reading, least, words=read_words, device=self.device)
        return replace(found, bundle_version=self.version)

    def prepare_search(self) -> None:
        """Index the catalogue for many queries: its words, and its vectors if they are many."""
        self.index.prepare()

    def add_items(
        self,
        items: Frame | Sequence[Item],
        pictures: Mapping[str, Picture | None] | Sequence[Picture | None] = {},
    ) -> Added:
        """Add items, or replace those of the same id; they can be found at once.

        The towers embed words and pictures; nothing is trained. The same method of a
        ``ProductIdentifier`` also lets it identify the items.

        >>> items = pl.DataFrame({"item_id": ["new"], "title": ["Blue ceramic mug"]})
        >>> recommender.add_items(items, {"new": "mug.jpg"})

        Args:
            items: DataFrame of polars, pandas or any library with the Arrow interface, with the
                columns of ``ItemSchema``, or ``Item`` records.
            pictures: Picture of each item by item id, or one entry per item in their order: bytes
                or path of an image. An item without an entry, with None or with empty bytes is
                embedded by its words alone. The column ``image`` is stored and not read, so an item
                that has one needs an entry.

        Raises:
            DataError: If a row or column of the table is not what ``ItemSchema`` wants.
            InvalidArgumentError: If an item occurs twice, or the pictures do not fit the items.
            InvalidImageError: If a picture is not a readable image; the message has its index.
            FileAccessError: If a picture's file cannot be read.
        """
        table = read_items(items)
        self.add_embedded(table, self.embedder.items(table, read_pictures(pictures, table)))
        self.index.set_lines(dict.fromkeys(table["item_id"], ()))
        return Added(added=len(table), bundle_version=self.version)

    def add_embedded(self, items: pl.DataFrame, embeddings: NDArray[np.float32]) -> None:
        """Add or replace items whose embeddings are at hand.

        Args:
            items: Table of ``ItemSchema``, B rows of distinct items.
            embeddings: Item embeddings (B, D), from ``embedder.items``.
        """
        self.catalogue.upsert(items, embeddings)
        self.index.update(self.catalogue.rows(items["item_id"]).tolist())
        if self._loaded_ranker is not None:
            self._loaded_ranker.refresh()

    def delete_items(self, item_ids: Collection[str]) -> Deleted:
        """Remove items from all answers; unknown ids are ignored."""
        listed = [one for one in list_ids("item_ids", item_ids) if one in self.catalogue]
        rows, deleted = self.catalogue.rows(listed).tolist(), self.catalogue.delete(listed)
        self.index.update(set(rows))
        return Deleted(deleted=deleted, bundle_version=self.version)

    @property
    def ranker(self) -> CatalogueRanker:
        """What ranks the catalogue; raises ``MissingPartError`` if the bundle has no events."""
        self.bundle.require("ranking")
        assert self._loaded_ranker is not None, "it is loaded wherever the bundle has the part"
        return self._loaded_ranker

    def _found(self, found: Nearest, source: str) -> Answer:
        ids, pairs = self.catalogue.item_ids, zip(*(one.tolist() for one in found), strict=True)
        return self._answer(Result(ids[row], score, source) for row, score in pairs)

    def _answer(self, results: Iterable[Result], degraded: tuple[str, ...] = ()) -> Answer:
        return Answer(results=tuple(results), bundle_version=self.version, degraded=degraded)
