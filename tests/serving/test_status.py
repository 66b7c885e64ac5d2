import importlib
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2

from recsys.answers import check_k
from recsys.errors import (
    BundleError,
    InvalidArgumentError,
    InvalidImageError,
    MissingPartError,
    UnknownItemError,
    UnknownUserError,
)
from serving.engine.cached_rows import encode_row
from serving.engine.embeddings import content_key
from serving.errors import (
    RETRY_AFTER_MS,
    ForbiddenError,
    InternalError,
    OverloadedError,
    UnauthenticatedError,
    UnavailableError,
)
from serving.state.changes import read_point
from serving.status import (
    DETAILS_KEY,
    INTERNAL,
    RULES,
    build_status,
    find_rule,
    read_error,
)

EXPLAINED = [
    (InvalidArgumentError, grpc.StatusCode.INVALID_ARGUMENT),
    (UnknownItemError, grpc.StatusCode.NOT_FOUND),
    (UnknownUserError, grpc.StatusCode.NOT_FOUND),
    (InvalidImageError, grpc.StatusCode.INVALID_ARGUMENT),
    (MissingPartError, grpc.StatusCode.FAILED_PRECONDITION),
    (BundleError, grpc.StatusCode.FAILED_PRECONDITION),
    (OverloadedError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (UnavailableError, grpc.StatusCode.UNAVAILABLE),
    (UnauthenticatedError, grpc.StatusCode.UNAUTHENTICATED),
    (ForbiddenError, grpc.StatusCode.PERMISSION_DENIED),
]


def caught(function: Callable[..., object], *args: object) -> Exception:
    try:
        function(*args)
    except Exception as error:
        return error
    raise AssertionError("it did not raise")


def travel(error: Exception) -> Exception:
    """Return what a client raises for what the service raised."""
    status = build_status(error, request_id="r1")
    metadata = (("other", "x"), (DETAILS_KEY, status.SerializeToString()))
    return read_error(find_rule(error).code, status.message, metadata)


@pytest.mark.parametrize(("kind", "code"), EXPLAINED)
def test_an_error_arrives_as_itself(kind: type[Exception], code: grpc.StatusCode) -> None:
    arrived = travel(kind("item 'x' is unknown"))

    assert type(arrived) is kind
    assert str(arrived) == "item 'x' is unknown"
    assert build_status(kind("x"), request_id="r1").code == code.value[0]


def test_an_overloaded_service_says_when_to_call_again() -> None:
    status = build_status(OverloadedError("slow down"), request_id="r1")
    info = error_details_pb2.RetryInfo()

    assert [detail.Unpack(info) for detail in status.details] == [False, False, True]
    assert info.retry_delay.ToMilliseconds() == RETRY_AFTER_MS
    others = build_status(UnavailableError("x"), request_id="r1").details
    assert not any(detail.Is(info.DESCRIPTOR) for detail in others)


def test_a_bad_argument_is_the_callers_mistake() -> None:
    error = caught(check_k, 0)

    assert find_rule(error).code is grpc.StatusCode.INVALID_ARGUMENT
    assert str(travel(error)) == "k must be a whole number between 1 and 500, got 0"
    assert type(travel(error)) is InvalidArgumentError


@pytest.mark.parametrize(
    "function",
    [
        lambda: np.zeros(3).reshape(2, 2),
        lambda: Path("/secret/file").read_bytes(),
        lambda: importlib.import_module("secret"),
        lambda: content_key("secret", 7),  # type: ignore[arg-type]
        lambda: encode_row(np.full(3, np.nan, np.float32)),
    ],
    ids=["ValueError", "OSError", "ImportError", "of ours", "embedding"],
)
def test_an_error_that_is_not_the_callers_is_internal_and_shows_nothing(
    function: Callable[[], object],
) -> None:
    error = caught(function)
    status = build_status(error, request_id="r1")

    assert find_rule(error) is INTERNAL
    assert "secret" not in str(status)
    assert status.message == "internal error; the service's log has the cause under request_id r1"
    assert type(travel(error)) is InternalError


def test_a_value_error_that_our_own_code_raises_by_accident_is_internal() -> None:
    error = caught(read_point, b"secret", None)

    assert type(error) is ValueError
    assert error.__traceback__ is not None
    assert find_rule(error) is INTERNAL


def test_a_status_names_domain_reason_and_request() -> None:
    status = build_status(UnknownItemError("x"), request_id="r1")
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo()

    assert status.details[0].Unpack(info)
    assert (info.domain, info.reason) == ("vitrine-recsys", "UNKNOWN_ITEM")
    assert status.details[1].Unpack(request)
    assert request.request_id == "r1"


def test_a_status_of_grpc_itself_is_read_by_its_code() -> None:
    error = read_error(grpc.StatusCode.UNAVAILABLE, "failed to connect", None)
    assert isinstance(error, UnavailableError)
    assert "the service cannot be reached: failed to connect; check address" in str(error)

    error = read_error(grpc.StatusCode.DATA_LOSS, "gone", ())
    assert isinstance(error, InternalError)
    assert str(error) == "DATA_LOSS: gone"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidArgumentError),
        (grpc.StatusCode.NOT_FOUND, InternalError),
        (grpc.StatusCode.INTERNAL, InternalError),
        (grpc.StatusCode.CANCELLED, UnavailableError),
    ],
)
def test_a_status_of_a_proxy_blames_neither_an_image_nor_an_item(
    code: grpc.StatusCode, kind: type[Exception]
) -> None:
    error = read_error(code, "no such route", None)

    assert type(error) is kind
    assert "no such route" in str(error)


def test_no_rule_hides_another() -> None:
    for position, rule in enumerate(RULES):
        assert find_rule(rule.error("x")) is rule
        assert not any(issubclass(rule.error, earlier.error) for earlier in RULES[:position])
