"""Exceptions to gRPC statuses with rich details, and back, by one table for both sides."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from recsys.errors import (
    BundleError,
    InvalidArgumentError,
    InvalidImageError,
    MissingPartError,
    UnknownItemError,
    UnknownUserError,
)
from serving.errors import (
    DeadlineError,
    ForbiddenError,
    InternalError,
    OverloadedError,
    UnauthenticatedError,
    UnavailableError,
)

DOMAIN = "vitrine-recsys"
DETAILS_KEY = "grpc-status-details-bin"


class Rule(NamedTuple):
    """How an error of one class travels.

    Args:
        error: Class of the error on both sides.
        code: Status code.
        reason: Name of the class in the status details.
    """

    error: type[Exception]
    code: grpc.StatusCode
    reason: str


# The errors that a caller can do something about.
RULES = (
    Rule(UnknownItemError, grpc.StatusCode.NOT_FOUND, "UNKNOWN_ITEM"),
    Rule(UnknownUserError, grpc.StatusCode.NOT_FOUND, "UNKNOWN_USER"),
    Rule(InvalidImageError, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_IMAGE"),
    Rule(MissingPartError, grpc.StatusCode.FAILED_PRECONDITION, "MISSING_PART"),
    Rule(BundleError, grpc.StatusCode.FAILED_PRECONDITION, "BUNDLE"),
    Rule(OverloadedError, grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),
    Rule(UnavailableError, grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"),
    Rule(UnauthenticatedError, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    Rule(ForbiddenError, grpc.StatusCode.PERMISSION_DENIED, "FORBIDDEN"),
    Rule(DeadlineError, grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    Rule(InvalidArgumentError, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
)
# Several of our errors have these codes. A status without a reason comes from gRPC itself or from a
# proxy, and is not about an image or an item.
_WITHOUT_REASON: dict[grpc.StatusCode, type[Exception]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.NOT_FOUND: InternalError,
    grpc.StatusCode.CANCELLED: UnavailableError,  # by a service that stops
}
INTERNAL = Rule(InternalError, grpc.StatusCode.INTERNAL, "INTERNAL")


def find_rule(error: BaseException) -> Rule:
    """Return the rule of an error; INTERNAL for every error that is a defect of ours."""
    return next((rule for rule in RULES if isinstance(error, rule.error)), INTERNAL)


def build_status(error: BaseException, *, request_id: str) -> status_pb2.Status:
    """Return the status that answers an error.

    Args:
        error: Exception that ended the call.
        request_id: Name of the request in the service's log; all that a caller learns of a defect.
    """
    rule = find_rule(error)
    hidden = f"internal error; the service's log has the cause under request_id {request_id}"
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=rule.reason, domain=DOMAIN),
        error_details_pb2.RequestInfo(request_id=request_id),
    ]
    if isinstance(error, OverloadedError):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(error.retry_after_ms)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
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
    """Return the exception of a failed call, of the class that the service raised.

    Args:
        code: Status code of the call.
        message: Status message of the call.
        metadata: Trailing metadata of the call, with the status details.
    """
    reason = _read_reason(metadata)
    for rule in (*RULES, INTERNAL):
        if rule.reason == reason:
            return rule.error(message)
    if code is grpc.StatusCode.UNAVAILABLE:
        message = (
            f"the service cannot be reached: {message}; check address and certificate, and call "
            "again once it runs"
        )
    error = _WITHOUT_REASON.get(code) or next(
        (rule.error for rule in RULES if rule.code is code), InternalError
    )
    return error(f"{code.name}: {message}" if error is InternalError else message)


def _read_reason(metadata: Iterable[Any] | None) -> str | None:
    for key, value in metadata or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            for packed in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if packed.Unpack(info) and info.domain == DOMAIN:
                    return str(info.reason)
    return None
