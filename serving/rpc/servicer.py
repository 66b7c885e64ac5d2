"""The gRPC methods: read the request, ask the engine, write the response."""

from typing import Any, NamedTuple

import grpc

from protos.recsys.v1 import recommender_pb2 as pb
from protos.recsys.v1 import recommender_pb2_grpc as rpc
from recsys.data.timestamps import to_us
from serving.engine.engine import Engine, Reply
from serving.rpc import requests
from serving.rpc.events import read_events
from serving.rpc.responses import (
    check_finite,
    write_annotation,
    write_group,
    write_item,
    write_live_item,
    write_results,
    write_verdict,
)
from serving.telemetry import Telemetry

Context = grpc.aio.ServicerContext[Any, Any]


class Limits(NamedTuple):
    """Bounds of requests that the operator sets."""

    max_image_bytes: int


class RecommenderServicer(rpc.RecommenderServicer):
    """Implements ``recsys.v1.Recommender`` for one bundle, all but its stream.

    Args:
        engine: Engine that answers.
        telemetry: Counters, for degraded answers.
        limits: Bounds of requests that the operator sets.
    """

    def __init__(self, engine: Engine, telemetry: Telemetry, limits: Limits) -> None:
        self._engine = engine
        self._telemetry = telemetry
        self._limits = limits

    async def Recommend(  # noqa: N802 - the name is the protocol's
        self, request: pb.RecommendRequest, context: Context
    ) -> pb.RecommendResponse:
        """Return the best items for a user."""
        reply = await self._engine.recommend(
            requests.read_id("user_id", request.user_id),
            k=requests.read_k(request.k),
            now=requests.read_now(request),
            filters=requests.read_filters(request.filters),
            exclude=requests.read_ids(
                "exclude_item_ids",
                request.exclude_item_ids,
                at_least=0,
                at_most=requests.MAX_ITEM_IDS,
            ),
            exclude_seen=request.exclude_seen,
            explain=request.explain,
            rules=requests.read_rules(request.rules) if request.HasField("rules") else None,
        )
        return pb.RecommendResponse(info=self._info(reply), results=write_results(reply.value))

    async def Rank(  # noqa: N802
        self, request: pb.RankRequest, context: Context
    ) -> pb.RankResponse:
        """Return the caller's candidates, best first."""
        reply = await self._engine.rank(
            requests.read_id("user_id", request.user_id),
            requests.read_ids(
                "item_ids", request.item_ids, at_least=1, at_most=requests.MAX_CANDIDATES
            ),
            now=requests.read_now(request),
            explain=request.explain,
        )
        return pb.RankResponse(info=self._info(reply), results=write_results(reply.value))

    async def SimilarItems(  # noqa: N802
        self, request: pb.SimilarItemsRequest, context: Context
    ) -> pb.SimilarItemsResponse:
        """Return the items closest to an item."""
        reply = await self._engine.similar(
            requests.read_id("item_id", request.item_id),
            k=requests.read_k(request.k),
            filters=requests.read_filters(request.filters),
        )
        return pb.SimilarItemsResponse(info=self._info(reply), results=write_results(reply.value))

    async def Search(  # noqa: N802
        self, request: pb.SearchRequest, context: Context
    ) -> pb.SearchResponse:
        """Return the items that match words, an image, or both."""
        image = request.image and self._read_image(request.image)
        reply = await self._engine.search(
            request.text or None,
            image or None,
            k=requests.read_k(request.k),
            filters=requests.read_filters(request.filters),
            mode=requests.read_search_mode(request.mode),
        )
        return pb.SearchResponse(info=self._info(reply), results=write_results(reply.value))

    async def Identify(  # noqa: N802
        self, request: pb.IdentifyRequest, context: Context
    ) -> pb.IdentifyResponse:
        """Return which product a photo shows."""
        reply = await self._engine.identify(
            self._read_image(request.image), k=requests.read_k(request.k)
        )
        return pb.IdentifyResponse(
            info=self._info(reply),
            known=reply.value.known,
            probability=check_finite("probability", reply.value.probability),
            candidates=write_results(reply.value.candidates),
            verdict=write_verdict(reply.value.verdict),
            answer=write_group(reply.value.product_group),
            annotation=write_annotation(reply.value.annotation),
            similar=write_results(reply.value.similar),
            words=reply.value.words,
        )

    async def Annotate(  # noqa: N802
        self, request: pb.AnnotateRequest, context: Context
    ) -> pb.AnnotateResponse:
        """Return the category, attributes and colours of the product on a photo, and its words."""
        reply = await self._engine.annotate(
            self._read_image(request.image),
            min_probability=requests.read_min_probability(request),
            read_words=request.read_words,
        )
        return pb.AnnotateResponse(info=self._info(reply), annotation=write_annotation(reply.value))

    async def RecordEvents(  # noqa: N802
        self, request: pb.RecordEventsRequest, context: Context
    ) -> pb.RecordEventsResponse:
        """Store events."""
        events = read_events(request.events, now_us=to_us("now", None))
        reply = await self._engine.record_events(events)
        return pb.RecordEventsResponse(
            info=self._info(reply),
            recorded=reply.value,
            duplicates=len(events) - reply.value,
        )

    async def UpsertItems(  # noqa: N802
        self, request: pb.UpsertItemsRequest, context: Context
    ) -> pb.UpsertItemsResponse:
        """Add or replace items."""
        items = requests.read_upserts(request.items, max_image_bytes=self._limits.max_image_bytes)
        reply = await self._engine.upsert_items(items)
        return pb.UpsertItemsResponse(info=self._info(reply), upserted=reply.value)

    async def DeleteItems(  # noqa: N802
        self, request: pb.DeleteItemsRequest, context: Context
    ) -> pb.DeleteItemsResponse:
        """Leave items out of all answers."""
        reply = await self._engine.delete_items(self._read_item_ids(request))
        return pb.DeleteItemsResponse(info=self._info(reply), deleted=reply.value)

    async def GetItems(  # noqa: N802
        self, request: pb.GetItemsRequest, context: Context
    ) -> pb.GetItemsResponse:
        """Return the records of items."""
        reply = await self._engine.get_items(self._read_item_ids(request))
        return pb.GetItemsResponse(
            info=self._info(reply), items=[write_item(row) for row in reply.value]
        )

    async def ListLiveItems(  # noqa: N802
        self, request: pb.ListLiveItemsRequest, context: Context
    ) -> pb.ListLiveItemsResponse:
        """Return what callers changed of the catalogue."""
        reply = await self._engine.list_live_items(*requests.read_page(request))
        cursor, items = reply.value
        return pb.ListLiveItemsResponse(
            info=self._info(reply),
            items=[write_live_item(*item) for item in items],
            next_page_token=str(cursor) if cursor else "",
        )

    async def ForgetLiveItems(  # noqa: N802
        self, request: pb.ForgetLiveItemsRequest, context: Context
    ) -> pb.ForgetLiveItemsResponse:
        """Remove live records, so that items are served as the bundle has them."""
        reply = await self._engine.forget_live_items(requests.read_live_selection(request))
        return pb.ForgetLiveItemsResponse(info=self._info(reply), forgotten=reply.value)

    def _read_image(self, data: bytes) -> bytes:
        return requests.read_image("image", data, max_bytes=self._limits.max_image_bytes)

    def _read_item_ids(self, request: pb.DeleteItemsRequest | pb.GetItemsRequest) -> list[str]:
        return requests.read_ids(
            "item_ids", request.item_ids, at_least=1, at_most=requests.MAX_ITEM_IDS
        )

    def _info(self, reply: Reply[Any]) -> pb.ResponseInfo:
        for reason in reply.degraded:
            self._telemetry.degraded(reason)
        return pb.ResponseInfo(bundle_version=self._engine.version, degraded=reply.degraded)
