"""The commands under ``recsys admin``, against a service on another thread."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from serving.client import Client
from serving.testing import running_service
from tests.serving.conftest import plant

Ask = Callable[..., Any]
Say = Callable[..., str]


class Served(NamedTuple):
    """Address of a service, the bundle that it began with, and the latest of its folder."""

    address: str
    first: str
    latest: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("shop")
    first = plant(folder).path
    latest = plant(folder, lambda items: items.with_columns(price=pl.lit(1.0))).path
    ready, done = threading.Event(), asyncio.Event()
    loop, addresses = asyncio.new_event_loop(), list[str]()

    async def serve() -> None:
        async with running_service(first) as service:
            addresses.append(service.address)
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(60)
    yield Served(addresses[0], first.name, latest.name)
    loop.call_soon_threadsafe(done.set)
    thread.join()
    loop.close()


def test_an_operator_swaps_rolls_back_and_divides_users(
    served: Served, ask: Ask, say: Say, refusal: Say
) -> None:
    at = ("--address", served.address)

    assert ask("admin", "status", *at)["served_version"] == served.first
    assert "is the first that this service serves" in refusal("admin", "rollback", *at)
    assert f"served │ {served.latest}" in say("admin", "swap", *at)
    assert ask("admin", "rollback", *at)["served_version"] == served.first
    divided = ask("admin", "load", "--share", 0.5, *at)
    assert [arm["bundle_version"] for arm in divided["arms"]] == [served.first, served.latest]
    with Client(served.address) as client:
        for number in range(20):
            client.recommend(f"visitor-{number}", k=1)
    arms = ask("admin", "status", *at)["arms"]
    assert sum(arm["users"] for arm in arms) == 20
    assert f"{served.latest} │ 0.5" in say("admin", "status", *at)
    assert ask("admin", "unload", *at)["loaded_version"] is None


def test_a_bundle_that_is_not_there_is_refused(
    served: Served, refusal: Say, tmp_path: Path
) -> None:
    at = ("--address", served.address)

    assert "bundle must be a folder" in refusal("admin", "swap", "0" * 16, *at)
    assert "must have 16 digits" in refusal("admin", "swap", tmp_path, *at)


def test_users_who_do_not_fit_the_shares_are_reported(
    served: Served, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.engine.split.Split.sample_ratio_p", lambda split: 1e-9)
    at = ("--address", served.address)

    assert "do not fit the shares (p = 1e-09)" in say("admin", "load", "--share", 0.5, *at)
    say("admin", "unload", *at)
