"""Answers to requests, from recommender, live state and embedding tiers; knows no protobuf."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from torch import Tensor

from recsys.answers import Annotation, Answer, Event, Identification, SearchMode
from recsys.catalogue.filters import Filters
from recsys.catalogue.search import query_parts
from recsys.identification.photos import read_ahead
from recsys.identifier import ProductIdentifier
from recsys.recommender import Recommender
from serving.engine.batcher import Batcher
from serving.engine.compute import Threads
from serving.engine.embeddings import Content, EmbeddingTiers, content_key, picture_digest
from serving.errors import UnavailableError
from serving.state.event_log import EventLog
from serving.state.histories import LiveHistories
from serving.state.items import LiveItem, LiveItems, NewItem

logger = logging.getLogger(__name__)

T = TypeVar("T")

HISTORY_UNAVAILABLE = "live_history_unavailable"
CATALOGUE_STALE = "live_catalogue_stale"


class Reply(NamedTuple, Generic[T]):
    """An answer.

    Args:
        value: Value of the answer.
        degraded: Reasons why the answer is incomplete; empty for a full answer.
    """

    value: T
    degraded: tuple[str, ...]


class Asked(NamedTuple):
    """A request for recommendations that waits for others to be computed with.

    Args:
        user_id: The caller's id.
        live: Events of the user since the bundle was trained.
        wanted: Other fields of ``recsys.ranking.requests.Request``.
    """

    user_id: str
    live: Sequence[Event]
    wanted: Mapping[str, Any]


class Engine:
    """Answers requests whose values have been checked.

    Args:
        recommender: Recommender.
        identifier: Identifier; None where the bundle was trained without labelled photos.
        threads: Threads on which both run.
        recommendations: Batches of requests for recommendations.
        tiers: Tiers for the embeddings of search queries.
        histories: Live user histories.
        log: Log of all events, for the next training.
        items: Live catalogue.
    """

    def __init__(
        self,
        recommender: Recommender,
        identifier: ProductIdentifier | None,
        *,
        threads: Threads,
        recommendations: Batcher[Asked, Answer],
        tiers: EmbeddingTiers,
        histories: LiveHistories,
        log: EventLog,
        items: LiveItems,
    ) -> None:
        self.version, self.parts = recommender.version, recommender.parts
        self._recommender = recommender
        self._identifier = identifier
        self._threads = threads
        self._recommendations = recommendations
        self._tiers = tiers
        self._histories = histories
        self._log = log
        self._items = items

    async def recommend(self, user_id: str, **wanted: Any) -> Reply[Answer]:
        """Return the best items for a user; ``wanted`` as for ``Recommender.recommend``.

        Raises:
            OverloadedError: If too many requests for recommendations are waiting.
        """
        live, degraded = await self._live_events(user_id)
        answer = await self._recommendations.submit(Asked(user_id, live, wanted))
        return Reply(answer, (*degraded, *answer.degraded, *self._stale()))

    async def rank(
        self, user_id: str, item_ids: Sequence[str], *, now: datetime | None, explain: bool
    ) -> Reply[Answer]:
        """Return the caller's candidates, best first for a user."""
        live, degraded = await self._live_events(user_id)

        def run() -> Answer:
            history = self._recommender.history(user_id, live)
            return self._recommender.rank(history, item_ids, now=now, explain=explain)

        answer = await self._threads.catalogue.run(run)
        return Reply(answer, (*degraded, *answer.degraded, *self._stale()))

    async def similar(self, item_id: str, *, k: int, filters: Filters) -> Reply[Answer]:
        """Return the items closest to an item."""
        found = await self._threads.catalogue.run(
            self._recommender.similar, item_id, k=k, filters=filters
        )
        return Reply(found, self._stale())

    async def search(
        self, text: str | None, image: bytes | None, *, k: int, filters: Filters, mode: SearchMode
    ) -> Reply[Answer]:
        """Return the items that match words, an image, or both."""
        parts = query_parts(text, image, mode)
        embeddings = await asyncio.gather(*(self._embed_query(*part) for part in parts))
        search = self._recommender.search_embedded
        found = await self._threads.catalogue.run(
            search, text, embeddings, k=k, filters=filters, mode=mode
        )
        return Reply(found, self._stale())

    async def identify(self, image: bytes, *, k: int) -> Reply[Identification]:
        """Return which product a photo shows.

        Raises:
            MissingPartError: If the bundle was trained without labelled photos.
        """
        self._recommender.bundle.require("identification")
        assert self._identifier is not None, "a bundle with the part gets an identifier"
        await self._threads.reading.run(self._identifier.read_ahead, image)
        seen = await self._threads.towers.run(self._identifier.see, [image])
        (found,) = await self._threads.catalogue.run(self._identifier.identify_seen, seen, k)
        return Reply(found, (*found.degraded, *self._stale()))

    async def annotate(
        self, image: bytes, *, min_probability: float, read_words: bool
    ) -> Reply[Annotation]:
        """Return the category, attributes and colours of the product on a photo, and its words.

        Raises:
            MissingPartError: If the bundle has no vision tower.
        """
        self._recommender.bundle.require("vision")
        if read_words:
            await self._threads.reading.run(read_ahead, image)
        annotate = self._recommender.annotate
        found = await self._threads.towers.run(
            annotate, image, min_probability=min_probability, read_words=read_words
        )
        return Reply(found, found.degraded)

    async def record_events(self, events: Sequence[Event]) -> Reply[int]:
        """Store events and return how many were new; errors also as ``LiveHistories.record``.

        All events are checked before any is stored. Those of kinds that the bundle was not trained
        on are in the log alone: in a history, they would push out what ranking reads.

        Raises:
            UnknownItemError: If an event names an item that is not in the catalogue.
        """
        item_ids = {event.item_id for event in events}
        await self._threads.catalogue.run(self._recommender.catalogue.rows, sorted(item_ids))
        kinds = self._recommender.kind_names
        read = [event for event in events if not kinds or event.kind in kinds]
        # Both know a repeated event, so after a failure of either one all may be sent again.
        new, _ = await asyncio.gather(self._log.append(events), self._histories.record(read))
        return Reply(new, self._stale())

    async def upsert_items(self, items: Sequence[NewItem]) -> Reply[int]:
        """Add or replace items and return how many; errors as ``LiveItems.upsert``."""
        await self._items.upsert(items)
        return Reply(len(items), self._stale())

    async def delete_items(self, item_ids: Sequence[str]) -> Reply[int]:
        """Leave items out of all answers and return how many of them were in the catalogue.

        Raises:
            UnavailableError: If Redis is away.
        """
        return Reply(await self._items.delete(item_ids), self._stale())

    async def get_items(self, item_ids: Sequence[str]) -> Reply[list[dict[str, Any]]]:
        """Return rows of ``ItemSchema``, in the order of the ids.

        Raises:
            UnknownItemError: If an item is not in the catalogue.
        """
        records = await self._threads.catalogue.run(self._recommender.catalogue.records, item_ids)
        return Reply(records.to_dicts(), self._stale())

    async def list_live_items(self, cursor: int, count: int) -> Reply[tuple[int, list[LiveItem]]]:
        """Return live records; arguments and errors as for ``LiveItems.scan``."""
        return Reply(await self._items.scan(cursor, count), self._stale())

    async def forget_live_items(
        self, which: list[str] | Literal["superseded", "all"]
    ) -> Reply[int]:
        """Remove live records and return how many there were.

        Args:
            which: Ids of their items; or all, or those of which nothing counts.

        Raises:
            UnavailableError: If Redis is away.
        """
        if isinstance(which, str):
            return Reply(await self._items.forget_many(which), self._stale())
        return Reply(await self._items.forget(which), self._stale())

    async def _embed_query(self, text: str | None, image: bytes | None) -> Tensor:
        text = (text or "").strip() or None
        self._recommender.embedder.check_query(text, image)
        digest = picture_digest(image) if image else None

        async def content() -> Content:
            return Content(text, image)

        return await self._tiers.get(content_key(text, digest), content)

    async def _live_events(self, user_id: str) -> tuple[list[Event], tuple[str, ...]]:
        try:
            return await self._histories.read(user_id), ()
        except UnavailableError:
            return [], (HISTORY_UNAVAILABLE,)

    def _stale(self) -> tuple[str, ...]:
        return (CATALOGUE_STALE,) if self._items.stale else ()
