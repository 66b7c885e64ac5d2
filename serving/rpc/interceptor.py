"""What happens around every call: token check, timing, errors to statuses, log."""

import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from serving.auth import check_token
from serving.errors import UnauthenticatedError
from serving.status import DETAILS_KEY, INTERNAL, build_status, find_rule
from serving.telemetry import Telemetry

logger = logging.getLogger(__name__)

# Generic in gRPC's type stubs only, so it cannot be parametrised at run time.
Handler = Any

# Probes of an orchestrator have no token, and learn nothing but whether the service serves.
_OPEN = "/grpc.health.v1.Health/"
# Metadata is limited to some kilobytes, and has the message twice.
_MAX_MESSAGE_CHARACTERS = 1_000


class Boundary(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Checks the token, counts and times calls, and turns exceptions into statuses.

    Args:
        telemetry: Counters of calls.
        token: Token that each call must have; None asks for none.
    """

    def __init__(self, telemetry: Telemetry, *, token: str | None) -> None:
        self._telemetry = telemetry
        self._token = token

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Return the handler of a call, wrapped."""
        handler: Any = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None:  # no such method: gRPC answers UNIMPLEMENTED
            return handler
        if self._token is not None and not method.startswith(_OPEN):
            try:
                check_token(handler_call_details.invocation_metadata, self._token)
            except UnauthenticatedError as error:
                return self._refuse(handler, error)
        if handler.response_streaming:  # reflection, health watch
            return handler
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(
                self._wrap(handler.stream_unary, method.rsplit("/", 1)[1]),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._wrap(handler.unary_unary, method.rsplit("/", 1)[1]),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _wrap(
        self, behaviour: Callable[[Any, Any], Awaitable[Any]], method: str
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            started = time.perf_counter()
            code = (
                "CANCELLED"  # if the call neither returns nor raises an Exception, the caller left
            )
            try:
                response = await behaviour(request, context)
                code = "OK"
            except grpc.aio.AbortError:
                code = "ABORTED"
                raise
            except Exception as error:
                code = find_rule(error).code.name
                await _abort(context, error, method)
            else:
                return response
            finally:
                self._telemetry.request(method, code, time.perf_counter() - started)

        return answer

    def _refuse(self, handler: Any, error: UnauthenticatedError) -> Handler:
        async def refuse(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            await _abort(context, error, "refused")

        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(refuse)
        return grpc.unary_unary_rpc_method_handler(refuse)


async def _abort(
    context: grpc.aio.ServicerContext[Any, Any], error: Exception, method: str
) -> None:
    """End a call with the status of an error."""
    request_id = uuid.uuid4().hex[:16]
    rule = find_rule(error)
    if rule is INTERNAL:
        logger.error("%s failed, request_id %s", method, request_id, exc_info=error)
    status = build_status(error, request_id=request_id)
    status.message = status.message[:_MAX_MESSAGE_CHARACTERS]
    await context.abort(
        rule.code,
        status.message,
        trailing_metadata=((DETAILS_KEY, status.SerializeToString()),),
    )
