"""One contract for both clients, against a service that runs elsewhere."""

import asyncio
import inspect
import math
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.errors import InvalidArgumentError, InvalidImageError, UnknownItemError
from serving.client import Answer, AsyncClient, Client, Event, Filters, Item
from serving.errors import UnavailableError
from serving.rpc.server import Service
from serving.testing import running_service

METHODS = [
    name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")
]


@pytest.fixture(scope="module")
def address(shop: Any, redis_server: Any) -> Iterator[str]:
    """Yield the address of a service on another thread, so that both kinds of client may wait."""
    started: list[Service] = []
    ready, done = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        settings = {"redis": redis_server.url, "namespace": "clients"}
        async with running_service(shop.path, **settings) as service:
            started.append(service)
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(60)
    yield started[0].address
    loop.call_soon_threadsafe(done.set)
    thread.join()
    loop.close()


class Both:
    """Calls a method of the one client or the other and waits for the answer."""

    def __init__(self, kind: type[Client] | type[AsyncClient]) -> None:
        self._kind = kind

    def __call__(self, address: str, method: str, *args: Any, **kwargs: Any) -> Any:
        if self._kind is Client:
            with Client(address, timeout_s=5) as client:
                return getattr(client, method)(*args, **kwargs)

        async def call() -> Any:
            async with AsyncClient(address, timeout_s=5) as client:
                return await getattr(client, method)(*args, **kwargs)

        return asyncio.run(call())


@pytest.fixture(params=[Client, AsyncClient])
def call(request: pytest.FixtureRequest, address: str) -> Callable[..., Any]:
    both = Both(request.param)
    return lambda method, *args, **kwargs: both(address, method, *args, **kwargs)


@pytest.mark.parametrize("method", METHODS)
def test_both_clients_have_the_same_methods(method: str) -> None:
    one, other = getattr(Client, method), getattr(AsyncClient, method)

    assert inspect.signature(one) == inspect.signature(other)
    assert inspect.iscoroutinefunction(other)
    assert inspect.getdoc(one) == inspect.getdoc(other)


def test_a_stream_stores_what_came_before_the_event_at_fault(call: Callable[..., Any]) -> None:
    carol = uuid.uuid4().hex

    def events(last: Any) -> Iterator[Any]:
        for second in range(600):
            yield Event(carol, "red-mug", "view", datetime.fromtimestamp(second, UTC))
        yield last

    for wrong, error in (
        ("no event", InvalidArgumentError),
        (Event(carol, "unheard of", "view"), UnknownItemError),
    ):
        with pytest.raises(error):
            call("record_event_stream", events(wrong))
    good = Event(carol, "red-mug", "view", datetime.fromtimestamp(600, UTC))
    stored = call("record_event_stream", events(good))
    assert stored.recorded + stored.duplicates == 601
    assert stored.duplicates >= 500
    with pytest.raises(InvalidArgumentError, match="events must be a series of Event records"):
        call("record_event_stream", 5)


def test_the_clients_are_made_alike() -> None:
    assert inspect.signature(Client) == inspect.signature(AsyncClient)


def test_every_method_of_the_protocol_can_be_called(call: Callable[..., Any], shop: Any) -> None:
    photo = shop.pictures["red-mug"]
    item = Item("trumpet", title="golden trumpet", created_at=datetime(2025, 1, 1, tzinfo=UTC))

    assert len(call("recommend", "user-1", k=3, explain=True).results[0].features) in (1, 2, 3)
    assert len(call("rank", "user-1", ["red-mug", "blue-mug"]).results) == 2
    assert len(call("similar", "red-mug", k=3).results) == 3
    assert len(call("search", "mug", photo, k=3).results) == 3
    assert call("identify", photo).candidates[0].item_id == "red-mug"
    assert call("record_events", [Event("ann", "red-mug", "view")]).recorded == 1
    bob = uuid.uuid4().hex
    many = [Event(bob, "red-mug", "view", datetime.fromtimestamp(n, UTC)) for n in range(1_200)]
    assert call("record_event_stream", iter(many)).recorded == 1_200
    assert call("add_items", [item], {"trumpet": photo}).added == 1
    assert call("get_items", ["trumpet"]).items == (item,)
    assert call("delete_items", ["trumpet"]).deleted == 1
    assert [one.item_id for one in call("list_live_items").items] == ["trumpet"]
    assert call("forget_live_items", ["trumpet"]).forgotten == 1


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("recommend", {"user": "ann", "exclude": "red-mug"}),
        ("rank", {"user": "ann", "item_ids": "red-mug"}),
        ("delete_items", {"item_ids": "red-mug"}),
        ("get_items", {"item_ids": "red-mug"}),
    ],
)
def test_one_text_is_not_taken_for_ids_of_one_letter(
    call: Callable[..., Any], method: str, arguments: dict[str, str]
) -> None:
    with pytest.raises(InvalidArgumentError, match="must be a list of ids, got the text 'red-mug'"):
        call(method, **arguments)


def test_a_category_may_be_a_text(call: Callable[..., Any]) -> None:
    item = Item("trombone", title="golden trombone", category="Music > Brass")
    assert call("add_items", [item]).added == 1
    assert call("get_items", ["trombone"]).items[0].category == ("Music", "Brass")
    for category in ("Music", "Music>Brass", ("Music", "Brass")):
        found = call("search", "trombone", filters=Filters(category=category))
        assert [one.item_id for one in found] == ["trombone"]
    assert call("delete_items", ["trombone"]).deleted == 1
    assert call("forget_live_items", ["trombone"]).forgotten == 1


def test_an_answer_is_a_plain_value(call: Callable[..., Any]) -> None:
    answer = call("search", "mug", k=2, filters=Filters(price_max=12))

    assert type(answer) is Answer
    assert answer.degraded == ()
    assert answer == call("search", "mug", k=2, filters=Filters(price_max=12))


@pytest.mark.parametrize(
    ("method", "arguments", "error"),
    [
        ("similar", ["unheard of"], UnknownItemError),
        ("identify", [b"no picture"], InvalidImageError),
        ("recommend", [""], InvalidArgumentError),
    ],
)
def test_errors_are_those_of_the_library(
    call: Callable[..., Any], method: str, arguments: list[Any], error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        call(method, *arguments)
    assert type(caught.value) is error


def test_a_time_without_a_zone_is_refused(call: Callable[..., Any]) -> None:
    naive = datetime(2025, 1, 1)

    with pytest.raises(ValueError, match="now must have a time zone"):
        call("recommend", "user-1", now=naive)
    with pytest.raises(ValueError, match="timestamp must have a time zone"):
        call("record_events", [Event("ann", "red-mug", "view", naive)])
    with pytest.raises(ValueError, match="created_at must have a time zone"):
        call("add_items", [Item("new", created_at=naive)])


@pytest.mark.parametrize("which", ["trumpet", "", "ALL"])
def test_a_text_that_names_no_live_items_is_refused(call: Callable[..., Any], which: str) -> None:
    with pytest.raises(ValueError, match="list of item ids, 'superseded' or 'all', got "):
        call("forget_live_items", which)


@pytest.mark.parametrize(
    ("method", "arguments", "wanted"),
    [
        ("recommend", ["half \ud800"], "user_id must be text without half characters"),
        ("recommend", ["ann", 3.0], "k must be a whole number"),
        ("similar", ["red-mug", True], "k must be a whole number"),
        ("rank", ["ann", ["red-mug", "\ud800"]], r"item_ids\[1\] must be text"),
        ("search", ["half \ud800"], "text must be text without half"),
        ("search", [5], "text must be text .*, got 5"),
        ("search", [0], "text must be text .*, got 0"),
        ("search", [b"mug"], "text must be text .*, got b'mug'"),
        ("search", ["mug", None, True], "k must be a whole number .*, got True"),
        ("recommend", ["ann", True], "k must be a whole number .*, got True"),
        ("recommend", [None], "user_id must be text .*, got None"),
        ("recommend", ["ann", None], "k must be a whole number .*, got None"),
        ("identify", [None], "image must be the bytes of an image file, got None"),
        ("identify", [b"image", True], "k must be a whole number .*, got True"),
        ("list_live_items", [5], "page_token must be text .*, got 5"),
        ("rank", ["ann", None], r"item_ids must be a list of ids \(text\), got None"),
        ("forget_live_items", [None], r"which must be a list of ids \(text\), got None"),
        ("record_events", [Event("ann", "mug", "view")], "events must be a list of .* Event, got"),
        ("record_events", [[None]], r"events\[0\] must be of type Event, got None"),
        ("add_items", [{"new": Item("new")}], "items must be a list of values of type Item, got"),
        ("add_items", [[Item("new")], [b"image"]], "pictures must map item ids to .*, got a list"),
        ("add_items", [[Item("new", price=True)]], r"items\[0\].price must be a number, got True"),
        ("search", [None, "photo.png"], "image must be the bytes of an image file, got str"),
        ("identify", [Path("photo.png")], "image must be the bytes of an image file, got PosixP"),
        ("add_items", [[Item("new")], {"new": "a.png"}], r"items\[0\].picture must be the bytes"),
        ("add_items", [[Item("new", price="12")]], r"items\[0\].price must be a number, got '12'"),
        ("add_items", [[Item("new", price=math.nan)]], r"items\[0\].price must be a number from 0"),
        (
            "record_events",
            [[Event("ann", "mug", "view", 5)]],
            r"events\[0\].timestamp must be a dat",
        ),
        ("record_events", [[Event(5, "mug", "view")]], r"events\[0\].user_id must be text"),
    ],
)
def test_a_value_that_cannot_be_sent_is_refused_by_name(
    call: Callable[..., Any], method: str, arguments: list[Any], wanted: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=wanted):
        call(method, *arguments)


@pytest.mark.parametrize("method", ["recommend", "similar", "search"])
def test_filters_of_another_type_are_refused(call: Callable[..., Any], method: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"filters must be Filters, .*got \{'price_max'"):
        call(method, "red-mug", filters={"price_max": 5})


def test_numbers_and_bytes_of_other_kinds_are_taken(call: Callable[..., Any], shop: Any) -> None:
    photo = bytearray(shop.pictures["red-mug"])

    assert len(call("search", "mug", memoryview(photo), np.int64(3))) == 3
    assert call("identify", photo, np.uint8(1)).candidates[0].item_id == "red-mug"


def test_a_picture_of_no_item_is_refused(call: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"pictures must be of items in the same call, .*'old'"):
        call("add_items", [Item("new")], {"old": b"x"})


def test_a_proxy_is_not_asked_for_this_machine(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody is there

    assert len(call("similar", "red-mug", k=1).results) == 1


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_nobody_at_the_address_is_unavailable(kind: type[Client] | type[AsyncClient]) -> None:
    with pytest.raises(UnavailableError):
        Both(kind)("127.0.0.1:1", "search", "mug")
