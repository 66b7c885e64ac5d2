"""The commands under ``recsys live``, against a service on another thread."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serving.client import Client, Item
from serving.testing import running_service
from tests.serving.conftest import plant

Ask = Callable[..., Any]
Say = Callable[..., str]
TOKEN = "a secret"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of a service that wants a token."""
    shop = plant(tmp_path_factory.mktemp("shop"))
    ready, done = threading.Event(), asyncio.Event()
    loop, addresses = asyncio.new_event_loop(), list[str]()

    async def serve() -> None:
        async with running_service(shop.path, token=TOKEN) as service:
            addresses.append(service.address)
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(60)
    yield addresses[0]
    loop.call_soon_threadsafe(done.set)
    thread.join()
    loop.close()


@pytest.fixture
def client(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """Yield a client of a service without live records; the commands find its token."""
    monkeypatch.setenv("RECSYS_TOKEN", TOKEN)
    with Client(address, token=TOKEN) as client:
        client.forget_live_items("all")
        yield client


def change(client: Client) -> None:
    mug = client.get_items(["blue-mug"]).items[0]
    client.add_items([replace(mug, price=9.0), Item("trumpet", title="[red] trumpet")])
    client.delete_items(["red-mug"])


def test_live_records_are_listed(client: Client, address: str, ask: Ask, say: Say) -> None:
    change(client)

    listed = ask("live", "list", "--address", address)
    assert {one["item_id"]: one["deleted"] for one in listed["items"]} == {
        "blue-mug": False,
        "red-mug": True,
        "trumpet": False,
    }
    (field,) = listed["items"][0]["fields"]
    assert (field["name"], field["counts"]) == ("price", True)
    assert listed["items"][0]["bundle_version"] == listed["bundle_version"]

    said = say("live", "list", "--address", address)
    assert "3 live records, 3 count" in said
    assert "deleted" in said


def test_records_are_forgotten_by_their_items_when_superseded_or_all(
    client: Client, address: str, ask: Ask, say: Say
) -> None:
    change(client)
    at = ("--address", address)

    assert ask("live", "forget", "blue-mug", "blue-mug", "unknown", *at)["forgotten"] == 1
    assert ask("live", "forget", "--superseded", *at)["forgotten"] == 0
    assert say("live", "forget", "--all", *at) == "2 live records forgotten"
    assert client.list_live_items().items == ()


@pytest.mark.parametrize("words", [(), ("mug", "--all"), ("--all", "--superseded")])
def test_forgetting_wants_one_selection(words: tuple[str, ...], refusal: Say) -> None:
    said = refusal("live", "forget", *words)
    assert said == "name items, or give --superseded or --all: one of the three"


def test_the_token_comes_from_a_file_or_the_environment(
    client: Client,
    address: str,
    tmp_path: Path,
    ask: Ask,
    refusal: Say,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RECSYS_TOKEN")
    file = tmp_path / "token"
    listing = ("live", "list", "--address", address)

    assert "metadata must have authorization" in refusal(*listing)
    file.write_text(f"{TOKEN}\n")
    assert ask(*listing, "--token-file", file)["items"] == []
    file.write_text("\n")
    assert refusal(*listing, "--token-file", file).endswith("must hold a token, but is empty")
