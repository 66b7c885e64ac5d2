"""A typed client: plain values in and out, the library's own errors."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from protos.recsys.v1 import recommender_pb2 as pb
from protos.recsys.v1 import recommender_pb2_grpc as rpc
from recsys.answers import (
    Added,
    Annotation,
    Answer,
    Deleted,
    Event,
    Identification,
    Item,
    SearchMode,
    list_ids,
)
from recsys.catalogue.filters import Filters
from recsys.rules import Rules
from serving.client import protobuf as wire
from serving.client.connection import open_channel, plan_connection
from serving.client.events import EventBatches, build_events
from serving.client.fields import build, build_image, build_timestamp
from serving.client.messages import Forgotten, Items, LiveItems, LiveSelection, Recorded
from serving.status import read_error


class Client:
    """Calls the service and waits for it.

    Every method raises what the service raised: UnknownItemError, InvalidImageError,
    MissingPartError, ValueError, or an error of ``serving.errors``.

    Args:
        address: Address of the service, as host:port.
        token: Token of the service, None if it has none.
        certificate: PEM file to trust, None for a service without TLS.
        identity: PEM file with the client's own certificate and its private key, for a service
            that wants one (mTLS).
        timeout_s: Longest wait for an answer, in seconds.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:50051",
        *,
        token: str | None = None,
        certificate: Path | None = None,
        identity: Path | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self._to = plan_connection(
            address,
            token=token,
            certificate=certificate,
            identity=identity,
            timeout_s=timeout_s,
        )
        self._channel = open_channel(self._to)
        self._stub = rpc.RecommenderStub(self._channel)

    def recommend(
        self,
        user: str,
        k: int = 10,
        *,
        now: datetime | None = None,
        filters: Filters = Filters(),
        exclude: Collection[str] = (),
        exclude_seen: bool = False,
        explain: bool = False,
        rules: Rules | None = None,
    ) -> Answer:
        """Return the best items for a user; an unknown one gets what is popular or new."""
        request = build(
            pb.RecommendRequest,
            user_id=user,
            k=k,
            filters=wire.build_filters(filters),
            exclude_item_ids=list_ids("exclude", exclude),
            exclude_seen=exclude_seen,
            now=build_timestamp("now", now),
            explain=explain,
            rules=wire.build_rules(rules),
        )
        return wire.read_answer(self._call(self._stub.Recommend, request))

    def rank(
        self,
        user: str,
        item_ids: Sequence[str],
        *,
        now: datetime | None = None,
        explain: bool = False,
    ) -> Answer:
        """Return candidates, best first for a user."""
        request = build(
            pb.RankRequest,
            user_id=user,
            item_ids=list_ids("item_ids", item_ids),
            now=build_timestamp("now", now),
            explain=explain,
        )
        return wire.read_answer(self._call(self._stub.Rank, request))

    def similar(self, item_id: str, k: int = 10, *, filters: Filters = Filters()) -> Answer:
        """Return the items closest to an item."""
        request = build(
            pb.SimilarItemsRequest, item_id=item_id, k=k, filters=wire.build_filters(filters)
        )
        return wire.read_answer(self._call(self._stub.SimilarItems, request))

    def search(
        self,
        text: str | None = None,
        image: bytes | None = None,
        k: int = 10,
        *,
        filters: Filters = Filters(),
        mode: SearchMode = "hybrid",
    ) -> Answer:
        """Return the items that answer words, an image, or both ("this, but in blue").

        Args:
            text: Words, in any language that the text encoder knows.
            image: Bytes of an image file.
            k: Maximum number of results.
            filters: Which items may be returned.
            mode: "vector" compares embeddings, "lexical" words with the items' own words, and
                "hybrid" does both, as far as words are given.
        """
        request = wire.build_search(text, image, k=k, filters=filters, mode=mode)
        return wire.read_answer(self._call(self._stub.Search, request))

    def identify(self, image: bytes, k: int = 5) -> Identification:
        """Return which product a photo shows."""
        request = build(pb.IdentifyRequest, image=build_image("image", image), k=k)
        return wire.read_identification(self._call(self._stub.Identify, request))

    def annotate(
        self, image: bytes, *, min_probability: float = 0.5, read_words: bool = False
    ) -> Annotation:
        """Return the category, attributes and colours of the product on a photo, and its words.

        Args:
            image: Bytes of an image file.
            min_probability: Lowest probability of a guess that is filled in.
            read_words: Whether the words on the photo are read, which takes longer.
        """
        request = build(
            pb.AnnotateRequest,
            image=build_image("image", image),
            min_probability=min_probability,
            read_words=read_words,
        )
        return wire.read_annotated(self._call(self._stub.Annotate, request))

    def record_events(self, events: Sequence[Event]) -> Recorded:
        """Store events; they are durable on return, and sending them again changes nothing."""
        request = build_events(events, now=datetime.now(UTC))
        return wire.read_recorded(self._call(self._stub.RecordEvents, request))

    def record_event_stream(self, events: Iterable[Event]) -> Recorded:
        """Store a series of events, of any length and without a time limit; durable on return.

        Where it raises, what came before may be stored: send all again, with their timestamps.
        """
        batches = EventBatches(events)
        recorded = self._call(self._stub.RecordEventStream, iter(batches), is_long=True)
        if batches.error is not None:
            raise batches.error
        return wire.read_recorded(recorded)

    def add_items(self, items: Sequence[Item], pictures: Mapping[str, bytes] = {}) -> Added:
        """Add or replace items; they are durable and served on return.

        Args:
            items: Complete records, which replace earlier ones.
            pictures: Bytes of each new picture by item id; empty bytes remove the picture. An item
                that is not named keeps the picture it has.
        """
        request = wire.build_items(items, pictures)
        return wire.read_added(self._call(self._stub.UpsertItems, request))

    def delete_items(self, item_ids: Collection[str]) -> Deleted:
        """Remove items from all answers; unknown ids are ignored."""
        request = build(pb.DeleteItemsRequest, item_ids=list_ids("item_ids", item_ids))
        return wire.read_deleted(self._call(self._stub.DeleteItems, request))

    def get_items(self, item_ids: Sequence[str]) -> Items:
        """Return stored records, in the order asked."""
        request = build(pb.GetItemsRequest, item_ids=list_ids("item_ids", item_ids))
        return wire.read_items(self._call(self._stub.GetItems, request))

    def list_live_items(self, page_token: str = "", *, page_size: int = 100) -> LiveItems:
        """Return what callers changed of the catalogue, and whether the bundle's table is newer.

        Args:
            page_token: Empty for the first page, else ``next_page_token`` of the page before.
            page_size: About how many items a page has.
        """
        request = build(pb.ListLiveItemsRequest, page_token=page_token, page_size=page_size)
        return wire.read_live_items(self._call(self._stub.ListLiveItems, request))

    def forget_live_items(self, which: Collection[str] | LiveSelection) -> Forgotten:
        """Remove live records and their pictures; items are then served as the bundle has them.

        Args:
            which: Ids of the items; "superseded" for the records of which nothing counts under the
                bundle of the service, or "all".
        """
        request = wire.build_forgetting(which)
        return wire.read_forgotten(self._call(self._stub.ForgetLiveItems, request))

    def close(self) -> None:
        """Close the connection."""
        self._to.is_closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _call(self, method: Callable[..., Any], request: Any, *, is_long: bool = False) -> Any:
        to = self._to
        to.check_open()
        timeout_s = None if is_long else to.timeout_s
        try:
            return method(request, timeout=timeout_s, metadata=to.metadata)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.CANCELLED:  # by closing the client meanwhile
                to.check_open()
            raise read_error(error.code(), error.details(), error.trailing_metadata()) from error
