"""Exceptions to gRPC statuses with rich details, and back: the one table that both sides read."""

from collections.abc import Iterable
from types import TracebackType
from typing import Any, NamedTuple

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from recsys.errors import (
    InvalidImageError,
    MissingPartError,
    UnknownItemError,
    UnknownUserError,
)
from serving.errors import (
    DeadlineError,
    InternalError,
    OverloadedError,
    UnauthenticatedError,
    UnavailableError,
)

DOMAIN = "vitrine-recsys"
DETAILS_KEY = "grpc-status-details-bin"
_OUR_PACKAGES = frozenset({"recsys", "vision", "text", "serving"})


class Rule(NamedTuple):
    """How one kind of error travels."""

    error: type[Exception]
    code: grpc.StatusCode
    reason: str


# The first rule that fits wins: subclasses stand before their bases.
RULES = (
    Rule(UnknownItemError, grpc.StatusCode.NOT_FOUND, "UNKNOWN_ITEM"),
    Rule(UnknownUserError, grpc.StatusCode.NOT_FOUND, "UNKNOWN_USER"),
    Rule(InvalidImageError, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_IMAGE"),
    Rule(MissingPartError, grpc.StatusCode.FAILED_PRECONDITION, "MISSING_PART"),
    Rule(OverloadedError, grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),
    Rule(UnavailableError, grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"),
    Rule(UnauthenticatedError, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    Rule(DeadlineError, grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    Rule(ValueError, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
)
INTERNAL = Rule(InternalError, grpc.StatusCode.INTERNAL, "INTERNAL")


def find_rule(error: BaseException) -> Rule:
    """Return how an error is answered; what is not ours to explain is INTERNAL."""
    for rule in RULES:
        if isinstance(error, rule.error):
            # A ValueError out of torch or polars is a defect here, not the caller's mistake, and
            # its text would show our internals.
            if rule.error is ValueError and not _raised_by_us(error):
                return INTERNAL
            return rule
    return INTERNAL


def build_status(error: BaseException, *, request_id: str) -> status_pb2.Status:
    """Return the status that answers an error.

    Args:
        error: What was raised.
        request_id: Names the request in our log; the only thing told about a defect.
    """
    rule = find_rule(error)
    hidden = f"internal error; the service's log has the cause under request_id {request_id}"
    details = (
        error_details_pb2.ErrorInfo(reason=rule.reason, domain=DOMAIN),
        error_details_pb2.RequestInfo(request_id=request_id),
    )
    status = status_pb2.Status(
        code=rule.code.value[0], message=hidden if rule is INTERNAL else str(error)
    )
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def read_error(
    code: grpc.StatusCode, message: str | None, metadata: Iterable[Any] | None
) -> Exception:
    """Return the exception that a failed call stands for, as the service raised it.

    Args:
        code: Status code of the call.
        message: Its message.
        metadata: Trailing metadata, where the reason is.
    """
    reason = _read_reason(metadata)
    for rule in (*RULES, INTERNAL):
        if rule.reason == reason:
            return rule.error(message)
    # No reason: the status came from gRPC itself, where each code has one meaning.
    for rule in (*RULES, INTERNAL):
        if rule.code is code:
            return rule.error(message)
    return InternalError(f"{code.name}: {message}")


def _read_reason(metadata: Iterable[Any] | None) -> str | None:
    for key, value in metadata or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            for packed in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if packed.Unpack(info) and info.domain == DOMAIN:
                    return str(info.reason)
    return None


def _raised_by_us(error: BaseException) -> bool:
    """Return whether the frame that raised is in one of our packages."""
    trace: TracebackType | None = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    module = str(trace.tb_frame.f_globals.get("__name__", ""))
    return module.split(".")[0] in _OUR_PACKAGES
