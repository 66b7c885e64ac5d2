"""What happens around every call: token, rate, timing, errors to statuses, log."""

import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import grpc

from serving.errors import ForbiddenError, UnauthenticatedError
from serving.logs import Call, current_call
from serving.rpc.audit import audit
from serving.rpc.rates import RateLimits
from serving.status import DETAILS_KEY, INTERNAL, build_status, find_rule
from serving.telemetry import Telemetry
from serving.tokens import Caller, Role, Tokens, role_of

logger = logging.getLogger(__name__)

# Generic in gRPC's type stubs only, so it cannot be parametrised at run time.
Handler = Any

# Probes of an orchestrator have no token, and learn nothing but whether the service serves.
_OPEN = "/grpc.health.v1.Health/"
# Metadata is limited to some kilobytes, and has the message twice.
_MAX_MESSAGE_CHARACTERS = 1_000
REQUEST_ID = "x-request-id"
_REQUEST_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)


class Boundary(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Checks tokens and rates, counts, times and names calls, and turns exceptions into statuses.

    Args:
        telemetry: Counters of calls.
        tokens: Tokens that the service knows.
        rates: Limits of each client.
    """

    def __init__(self, telemetry: Telemetry, tokens: Tokens, rates: RateLimits) -> None:
        self._telemetry = telemetry
        self._tokens = tokens
        self._rates = rates

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
        metadata, role = handler_call_details.invocation_metadata, role_of(method)
        caller = Caller("", "admin")
        if not method.startswith(_OPEN):
            try:
                caller = self._tokens.check(metadata, role)
            except (UnauthenticatedError, ForbiddenError) as error:
                return self._refuse(handler, method, error)
        if handler.response_streaming:  # reflection, health watch
            return handler
        call = Call(_request_id(metadata), method.rsplit("/", 1)[1], caller.name)
        is_limited = not method.startswith(_OPEN)
        wrap = partial(self._wrap, call=call, role=role, is_limited=is_limited)
        coding = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(wrap(handler.stream_unary), **coding)
        return grpc.unary_unary_rpc_method_handler(wrap(handler.unary_unary), **coding)

    def _wrap(
        self,
        behaviour: Callable[[Any, Any], Awaitable[Any]],
        *,
        call: Call,
        role: Role,
        is_limited: bool,
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            started = time.perf_counter()
            current_call.set(call)
            code = (
                "CANCELLED"  # if the call neither returns nor raises an Exception, the caller left
            )
            try:
                if is_limited:
                    self._rates.take(call.client or _host(context.peer()))
                response = await behaviour(request, context)
                context.set_trailing_metadata(((REQUEST_ID, call.request_id),))
                code = "OK"
            except grpc.aio.AbortError:
                code = "ABORTED"
                raise
            except Exception as error:
                code = find_rule(error).code.name
                await _abort(context, error, call)
            else:
                return response
            finally:
                self._telemetry.request(call.method, code, time.perf_counter() - started)
                if role != "read" and is_limited:
                    audit(call, request, code)

        return answer

    def _refuse(self, handler: Any, method: str, error: Exception) -> Handler:
        name = method.rsplit("/", 1)[1]

        async def refuse(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            self._telemetry.refused(find_rule(error).code.name)
            await _abort(context, error, Call(_request_id(()), name, ""))

        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(refuse)
        return grpc.unary_unary_rpc_method_handler(refuse)


def _request_id(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the client's name of a call if it has a sound one, else a new name."""
    sent = dict(metadata).get(REQUEST_ID)
    if isinstance(sent, str) and _REQUEST_ID.fullmatch(sent):
        return sent
    return uuid.uuid4().hex[:16]


def _host(peer: str) -> str:
    """Return the address of a client without its port, which changes."""
    return peer.rpartition(":")[0] if peer.startswith("ipv") else peer


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: Exception, call: Call) -> None:
    """End a call with the status of an error."""
    rule = find_rule(error)
    if rule is INTERNAL:
        logger.error("%s failed, request_id %s", call.method, call.request_id, exc_info=error)
    status = build_status(error, request_id=call.request_id)
    status.message = status.message[:_MAX_MESSAGE_CHARACTERS]
    await context.abort(
        rule.code,
        status.message,
        trailing_metadata=(
            (REQUEST_ID, call.request_id),
            (DETAILS_KEY, status.SerializeToString()),
        ),
    )
