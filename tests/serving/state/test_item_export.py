"""Exports of a live catalogue, compared with what a service over the same state serves."""

from dataclasses import replace
from pathlib import Path

import polars as pl

from recsys.bundle import Bundle
from recsys.data.loading import load_items
from recsys.schema import ItemSchema
from serving.client import Item
from serving.state.bundled import BundledItems
from serving.state.connection import RedisConnection
from serving.state.item_export import export_items
from tests.serving.conftest import PlantedShop
from tests.serving.state.conftest import Open, item


async def test_the_table_has_what_is_served(
    opened: Open,
    shop: PlantedShop,
    strange_photo: bytes,
    connection: RedisConnection,
    namespace: str,
    tmp_path: Path,
) -> None:
    async with opened(shop) as client:
        await client.add_items([replace(await item(client, "blue-mug"), price=9.0)])
        new = Item("trumpet", title="golden trumpet", attributes={"key": "B flat"})
        await client.add_items([new, Item("bare")], {"trumpet": strange_photo})
        await client.delete_items(["red-mug", "bare"])

        found = await export_items(
            Bundle(shop.path),
            connection,
            tmp_path / "items.parquet",
            images_root=tmp_path,
            namespace=namespace,
        )
        table = pl.read_parquet(found.file)
        served = (await client.get_items(table["item_id"].to_list())).items
        changed = replace(await item(client, "red-lamp"), price=1.0)
        await client.add_items([changed])

    assert found[1:5] == (12, 2, 1, 1)
    assert {one.item_id for one in served} == {*shop.pictures, "trumpet"} - {"red-mug"}
    # The new item comes last; the others are in the bundle's order.
    assert table["item_id"].to_list() == [
        *(one for one in shop.pictures if one != "red-mug"),
        "trumpet",
    ]
    assert [one.price for one in served] == table["price"].to_list()
    image = table["image"][-1]
    assert (tmp_path / image).read_bytes() == strange_photo
    assert image.startswith("live/")
    assert image.endswith(".png")
    ItemSchema.validate(table)
    loaded = load_items(found.file, images_root=tmp_path)
    assert loaded.frame.filter(item_id="trumpet")["image"].item() == image

    # A bundle that is trained on it supersedes what is in it, and nothing that came later.
    as_of_us = found.file.stat().st_mtime_ns // 1000
    assert as_of_us == found.as_of_us
    newer = BundledItems(table, version="newer", as_of_us=as_of_us)
    async with opened(shop) as client:
        live = (await client.list_live_items()).items
        times = {one.item_id: one.written_at for one in live}
    is_later = {name: at.timestamp() * 1e6 > as_of_us for name, at in times.items() if at}
    assert is_later == {
        "blue-mug": False, "trumpet": False, "bare": False, "red-mug": False, "red-lamp": True
    }  # fmt: skip
    assert "trumpet" in newer


async def test_without_changes_the_table_is_that_of_the_bundle(
    shop: PlantedShop, connection: RedisConnection, namespace: str, tmp_path: Path
) -> None:
    bundle, file = Bundle(shop.path), tmp_path / "tables" / "items.parquet"
    for _ in range(2):
        found = await export_items(
            bundle, connection, file, images_root=tmp_path / "images", namespace=namespace
        )
        assert pl.read_parquet(file).equals(bundle.items)
        assert found[1:5] == (12, 0, 0, 0)
