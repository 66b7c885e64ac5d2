"""Live records that are listed and forgotten, over real gRPC."""

import json
from dataclasses import replace
from typing import Any

import grpc
import pytest

from protos.recsys.v1 import recommender_pb2 as pb
from protos.recsys.v1 import recommender_pb2_grpc as rpc
from recsys.errors import UnknownItemError
from serving.client import AsyncClient, Item, LiveItem
from serving.rpc.server import Service
from serving.state.changelog import LiveCatalogue
from serving.state.records import ItemRecord
from tests.serving.conftest import PlantedShop
from tests.serving.state.conftest import Open, item
from tests.serving.waiting import eventually


async def listed(client: AsyncClient, *, page_size: int = 100) -> dict[str, LiveItem]:
    """Return every live record by item id."""
    token, found = "", {}
    while True:
        page = await client.list_live_items(token, page_size=page_size)
        found |= {one.item_id: one for one in page.items}
        token = page.next_page_token
        if not token:
            return found


async def change(
    client: AsyncClient, item_id: str, picture: bytes | None = None, **to: Any
) -> None:
    pictures = {} if picture is None else {item_id: picture}
    await client.add_items([replace(await item(client, item_id), **to)], pictures)


async def test_a_record_is_listed_with_what_changed_when_and_whether_it_counts(
    opened: Open, shop: PlantedShop, newer: PlantedShop, strange_photo: bytes
) -> None:
    async with opened(shop) as client:
        await change(client, "blue-mug", price=9.0)
        await change(client, "blue-mug", strange_photo, price=9.0, available=False)
        await client.delete_items(["red-mug"])
        before = await listed(client)
    async with opened(newer) as client:
        await change(client, "blue-mug", available=False)
        after = await listed(client)

    mug, now = before["blue-mug"], after["blue-mug"]
    times = {field.name: field.changed_at for field in mug.fields}
    assert set(times) == {"price", "available", "picture"}
    assert times["price"] < times["available"] == times["picture"] == mug.written_at
    assert all(field.counts for field in mug.fields)
    assert mug.counts
    assert mug.bundle_version == shop.path.name
    assert [(field.name, field.counts) for field in now.fields] == [("available", True)]
    assert now.bundle_version == newer.path.name
    assert (before["red-mug"].deleted, before["red-mug"].counts) == (True, True)
    assert (after["red-mug"].deleted, after["red-mug"].counts) == (True, False)


async def test_a_long_list_comes_in_pages(client: AsyncClient) -> None:
    for start in range(0, 700, 100):
        await client.add_items([Item(f"new-{start + n}") for n in range(100)])

    first = await client.list_live_items(page_size=50)
    assert 50 <= len(first.items) < 300
    assert first.next_page_token
    assert len(await listed(client, page_size=50)) == 700


@pytest.mark.parametrize(("token", "size"), [("x", 1), ("-1", 1), ("9" * 20, 1), ("", 0)])
async def test_a_wrong_page_is_refused(client: AsyncClient, token: str, size: int) -> None:
    with pytest.raises(ValueError, match=r"page_(token|size) must be"):
        await client.list_live_items(token, page_size=size)


async def test_a_forgotten_item_is_as_in_the_bundle_on_every_replica(
    opened: Open, shop: PlantedShop, strange_photo: bytes
) -> None:
    async with opened(shop) as one, opened(shop) as two:
        await change(one, "blue-mug", strange_photo, price=9.0)
        await one.delete_items(["red-mug"])
        await one.add_items([Item("trumpet", title="golden trumpet")])

        forgotten = ["blue-mug", "red-mug", "trumpet", "never changed"]
        assert (await one.forget_live_items(forgotten)).forgotten == 3

        async def reverted() -> bool:
            return (await item(two, "blue-mug")).price == 18.0

        await eventually(reverted)
        for client in (one, two):
            assert (await item(client, "blue-mug")).price == 18.0
            assert (await item(client, "red-mug")).price == 10.0
            assert not (await client.identify(strange_photo)).known
            with pytest.raises(UnknownItemError):
                await item(client, "trumpet")
            assert await listed(client) == {}
        await change(two, "blue-mug", price=7.0)  # and it can be changed again
        assert (await item(two, "blue-mug")).price == 7.0


async def test_what_is_forgotten_stays_forgotten_after_a_restart(
    opened: Open, shop: PlantedShop, connection: Any, namespace: str, strange_photo: bytes
) -> None:
    async with opened(shop) as client:
        await change(client, "blue-mug", strange_photo, price=9.0)
        await change(client, "red-mug", price=9.0)
        await client.forget_live_items(["blue-mug"])

    assert await connection.client.hlen(f"{{{namespace}:catalogue}}:pictures") == 0
    async with opened(shop) as client:
        assert (await item(client, "blue-mug")).price == 18.0
        assert (await item(client, "red-mug")).price == 9.0


async def test_superseded_records_are_forgotten_and_the_others_stay(
    opened: Open, shop: PlantedShop, newer: PlantedShop
) -> None:
    async with opened(shop) as client:
        for item_id in ("green-mug", "blue-mug", "red-lamp"):
            await change(client, item_id, price=9.0)
        await client.delete_items(["red-mug"])
    async with opened(newer) as client:
        await change(client, "red-lamp", available=False)

        assert (await client.forget_live_items("superseded")).forgotten == 3
        assert set(await listed(client)) == {"red-lamp"}
        assert (await client.forget_live_items("superseded")).forgotten == 0
        assert (await client.forget_live_items("all")).forgotten == 1
        assert (await item(client, "red-lamp")).available


async def test_a_record_that_is_replaced_meanwhile_is_not_forgotten(
    opened: Open, shop: PlantedShop, newer: PlantedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(shop) as client:
        await change(client, "blue-mug", price=9.0)
    async with opened(newer) as client, opened(newer) as other:
        scan = LiveCatalogue.scan
        pending = [lambda: change(other, "blue-mug", price=5.0)]

        async def interrupted(self: LiveCatalogue, cursor: int, count: int) -> Any:
            found = await scan(self, cursor, count)
            if pending:
                await pending.pop()()
            return found

        monkeypatch.setattr(LiveCatalogue, "scan", interrupted)
        assert (await client.forget_live_items("superseded")).forgotten == 0
        assert not pending
        assert set(await listed(client)) == {"blue-mug"}
        assert (await item(other, "blue-mug")).price == 5.0


async def test_an_earlier_release_reads_of_a_forgotten_item_what_the_bundle_has(
    opened: Open, shop: PlantedShop, connection: Any, namespace: str
) -> None:
    async with opened(shop) as client:
        await change(client, "blue-mug", price=9.0)
        await client.add_items([Item("trumpet")])
        await client.forget_live_items(["blue-mug", "trumpet"])

    entries = await connection.client.xrevrange(f"{{{namespace}:catalogue}}:stream", count=2)
    trumpet, mug = (ItemRecord(**json.loads(fields[b"r"])) for _, fields in entries)
    assert mug.fields is not None
    assert (mug.item_id, mug.picture, mug.fields["price"]) == ("blue-mug", "bundle", 18.0)
    assert (trumpet.item_id, trumpet.deleted) == ("trumpet", True)


async def test_no_items_or_items_beside_a_selection_are_refused(service: Service) -> None:
    everything = pb.ForgetLiveItemsRequest(item_ids=["mug"], selection=pb.LIVE_SELECTION_ALL)
    unknown = pb.ForgetLiveItemsRequest()
    unknown.ParseFromString(b"\x10\x09")
    async with grpc.aio.insecure_channel(service.address) as channel:
        stub = rpc.RecommenderStub(channel)
        for request, message in (
            (pb.ForgetLiveItemsRequest(), "item_ids must have 1 to 1000 entries, got 0"),
            (everything, "item_ids must be empty when selection is set, got 1"),
            (unknown, "selection must be one of LIVE_SELECTION_UNSPECIFIED, .* got 9"),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match=message):
                await stub.ForgetLiveItems(request)
