"""Records that cannot be read, over real gRPC and a real Redis."""

from dataclasses import replace
from typing import Any

import pytest

from recsys.errors import UnknownItemError
from serving.client import AsyncClient, Item
from serving.testing import running_service


async def test_a_record_that_cannot_be_read_counts_as_no_change_until_it_is_replaced(
    shop: Any,
    connection: Any,
    redis_server: Any,
    namespace: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    records = f"{{{namespace}:catalogue}}:records"
    for item_id in ("red-mug", "red-lamp", "red-chair", "lost"):
        text = b'{"item_id": "red-mug", "picture": "stored", "picture_digest": "d", "new": 1}'
        await connection.client.hset(records, item_id, text if item_id == "red-mug" else b"\xff")
    async with (
        running_service(shop.path, redis=redis_server.url, namespace=namespace) as replica,
        AsyncClient(replica.address) as client,
    ):
        before = (await client.get_items(["red-mug"])).items[0]
        assert before.title == "red mug number 0"
        with pytest.raises(UnknownItemError):
            await client.get_items(["lost"])
        await client.add_items([replace(before, price=1.5), Item("lost", title="found")])
        prices = [one.price for one in (await client.get_items(["red-mug", "lost"])).items]
        assert prices == [1.5, None]
        live = {one.item_id: one.counts for one in (await client.list_live_items()).items}
        assert live == {"red-mug": True, "lost": True, "red-lamp": False, "red-chair": False}
        assert (await client.forget_live_items(["red-lamp"])).forgotten == 1
        assert (await client.forget_live_items("superseded")).forgotten == 1
        assert len((await client.list_live_items()).items) == 2
        assert replica.telemetry.value("recsys_unreadable_total", kind="item") > 0
    assert sum("cannot be read" in line for line in caplog.messages) == 1
