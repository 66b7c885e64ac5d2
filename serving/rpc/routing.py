"""Each call goes to one bundle, which answers it to its end."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from google.protobuf.message import Message

from protos.recsys.v1 import recommender_pb2 as pb
from protos.recsys.v1 import recommender_pb2_grpc as rpc
from recsys.data.ids import trim_id
from serving.engine.versions import Versions
from serving.logs import current_call
from serving.rpc.servicer import Context, Limits, RecommenderServicer
from serving.telemetry import Telemetry

_METHODS = pb.DESCRIPTOR.services_by_name["Recommender"].methods


class Router(rpc.RecommenderServicer):
    """Passes each call to the servicer of the bundle that is to answer it.

    A call takes its bundle before anything else, and keeps it. So an answer is of one version,
    whatever is swapped meanwhile.

    Args:
        versions: Bundles that are open.
        telemetry: Counters.
        limits: Bounds of requests that the operator sets.
    """

    def __init__(self, versions: Versions, telemetry: Telemetry, limits: Limits) -> None:
        self._versions = versions
        self._telemetry = telemetry
        self._limits = limits
        for method in _METHODS:
            if not method.client_streaming:
                setattr(self, method.name, partial(self._pass, method.name))

    async def RecordEventStream(  # noqa: N802 - the name is the protocol's
        self, request_iterator: AsyncIterator[pb.RecordEventsRequest], context: Context
    ) -> pb.RecordEventsResponse:
        """Store the events of each request before the next one is read.

        Each request is a call of its own: a stream may last long, and would keep its bundle open.
        """
        version = self._versions.status().served
        total = pb.RecordEventsResponse(info=pb.ResponseInfo(bundle_version=version))
        async for request in request_iterator:
            stored = await self._pass("RecordEvents", request, context)
            total.info.CopyFrom(stored.info)
            total.recorded += stored.recorded
            total.duplicates += stored.duplicates
        return total

    async def _pass(self, method: str, request: Message, context: Context) -> Any:
        user_id = trim_id(getattr(request, "user_id", "")) or None
        with self._versions.answering(user_id) as engine:
            if (call := current_call.get()) is not None:
                call.bundle_version = engine.version
            parts = (engine, self._telemetry, self._limits)
            servicer = RecommenderServicer(*parts)  # type: ignore[abstract] # the stream is above
            answer = await getattr(servicer, method)(request, context)
            self._telemetry.answered_by(engine.version)
            return answer
