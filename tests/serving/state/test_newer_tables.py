"""Live changes under a bundle whose items table is newer than they are, over real gRPC."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.errors import UnknownItemError
from recsys.identifier import ProductIdentifier
from serving.client import AsyncClient, Event, Filters, Item
from tests.serving.conftest import PlantedShop, plant
from tests.serving.state.conftest import Open, item
from tests.serving.waiting import eventually

EVERY = Filters(available_only=False)


async def shown(client: AsyncClient, photo: bytes) -> set[str]:
    """Return every item that any answer has."""
    answers = (
        (await client.recommend("user-1", k=500, filters=EVERY)).results,
        (await client.search("mug", k=500, filters=EVERY)).results,
        (await client.similar("red-lamp", k=500, filters=EVERY)).results,
        (await client.identify(photo, k=500)).candidates,
    )
    return {result.item_id for results in answers for result in results}


async def test_a_newer_table_discontinues_returns_and_changes_items(
    opened: Open, shop: PlantedShop, newer: PlantedShop, strange_photo: bytes
) -> None:
    async with opened(shop) as client:
        for item_id in ("green-mug", "blue-mug", "red-lamp"):
            await client.add_items([replace(await item(client, item_id), price=9.0)])
        await client.delete_items(["red-mug"])
        await client.add_items(
            [Item("trumpet", title="golden trumpet")], {"trumpet": strange_photo}
        )

    async with opened(newer) as client:
        assert {"red-mug", "blue-mug", "red-lamp"} <= await shown(client, strange_photo)
        assert not {"green-mug", "trumpet"} & await shown(client, strange_photo)
        assert (await item(client, "blue-mug")).price == 118.0
        lamp = await item(client, "red-lamp")
        assert (lamp.title, lamp.price) == ("crimson lantern", 111.0)
        assert (await client.search("crimson lantern", k=1)).results[0].item_id == "red-lamp"
        for call in (
            client.get_items(["green-mug"]),
            client.similar("trumpet"),
            client.record_events([Event("user-1", "green-mug", "view")]),
        ):
            with pytest.raises(UnknownItemError):
                await call

    async with opened(shop) as client:  # rolled back: nothing was lost
        assert (await item(client, "green-mug")).price == 9.0
        assert "trumpet" in await shown(client, strange_photo)
        assert "red-mug" not in await shown(client, strange_photo)


async def test_a_later_change_counts_and_leaves_the_other_fields_to_the_table(
    opened: Open, shop: PlantedShop, newer: PlantedShop
) -> None:
    async with opened(shop) as client:
        await client.add_items([replace(await item(client, "blue-mug"), price=9.0)])

    async with opened(newer) as client:
        await client.add_items([replace(await item(client, "blue-mug"), available=False)])

    async with opened(newer) as client:
        mug = await item(client, "blue-mug")
        assert (mug.price, mug.available) == (118.0, False)
    async with opened(shop) as client:
        mug = await item(client, "blue-mug")
        assert (mug.price, mug.available) == (18.0, False)


async def test_a_discontinued_item_returns_with_its_picture_when_it_is_upserted(
    opened: Open, shop: PlantedShop, newer: PlantedShop, strange_photo: bytes
) -> None:
    trumpet = Item("trumpet", title="golden trumpet")
    async with opened(shop) as client:
        await client.add_items([trumpet], {"trumpet": strange_photo})

    async with opened(newer) as client:
        assert not (await client.identify(strange_photo)).known
        await client.add_items([trumpet])

        assert (await client.identify(strange_photo)).candidates[0].item_id == "trumpet"
    async with opened(newer) as client:
        assert "trumpet" in await shown(client, strange_photo)


async def test_an_export_later_than_the_clock_of_redis_is_logged(
    opened: Open, shop: PlantedShop, newer: PlantedShop, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(shop):
        assert "clock" not in caplog.text
    async with opened(newer):
        assert f"the items of bundle {newer.path.name} were exported" in caplog.text
        assert "one clock is wrong" in caplog.text


async def test_replicas_of_two_bundles_each_serve_what_is_newer_for_them(
    opened: Open, shop: PlantedShop, newer: PlantedShop
) -> None:
    async with opened(shop) as old, opened(newer) as new:
        await old.add_items([replace(await item(old, "blue-mug"), price=9.0)])
        await old.delete_items(["red-mug"])
        await new.add_items([Item("trumpet", title="golden trumpet")])

        async def arrived() -> bool:
            return "trumpet" in await shown(old, shop.pictures["red-mug"])

        await eventually(arrived)
        assert (await item(old, "blue-mug")).price == 9.0
        assert (await item(new, "blue-mug")).price == 118.0
        assert (await item(new, "red-mug")).price == 110.0
        with pytest.raises(UnknownItemError):
            await item(old, "red-mug")


async def test_an_item_of_the_table_again_is_identified_by_the_tables_picture(
    opened: Open, shop: PlantedShop, newer: PlantedShop, strange_photo: bytes
) -> None:
    async with opened(shop) as client:
        await client.add_items([await item(client, "blue-mug")], {"blue-mug": strange_photo})
        assert (await client.identify(strange_photo)).known

    photo = newer.pictures["blue-mug"]
    table = ProductIdentifier.load(newer.path).identify(photo).candidates
    async with opened(newer) as client:
        assert not (await client.identify(strange_photo)).known
        served = (await client.identify(photo)).candidates
        assert [(one.item_id, pytest.approx(one.score, abs=1e-5)) for one in served] == [
            (one.item_id, one.score) for one in table
        ]


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_record_of_an_earlier_release_counts_if_the_stream_has_its_time(
    opened: Open,
    shop: PlantedShop,
    newer: PlantedShop,
    connection: Any,
    namespace: str,
    is_known: bool,
) -> None:
    text = '{"item_id": "red-mug", "deleted": true, "picture": "none", "fields": null}'
    keys = {name: f"{{{namespace}:catalogue}}:{name}" for name in ("records", "stream", "number")}
    await connection.client.hset(keys["records"], "red-mug", text)
    await connection.client.incr(keys["number"])
    if is_known:
        await connection.client.xadd(keys["stream"], {"n": 1, "e": "", "r": text})

    async with opened(shop) as client:  # its table is older than the stream
        assert ("red-mug" in await shown(client, shop.pictures["red-mug"])) is not is_known
    async with opened(newer) as client:
        assert "red-mug" in await shown(client, shop.pictures["red-mug"])


async def test_a_change_of_an_earlier_release_takes_effect_in_a_running_replica(
    opened: Open, shop: PlantedShop, connection: Any, namespace: str
) -> None:
    text = '{"item_id": "red-mug", "deleted": true}'
    keys = {name: f"{{{namespace}:catalogue}}:{name}" for name in ("records", "stream", "number")}
    async with opened(shop) as client:
        pipeline = connection.client.pipeline(transaction=True)
        pipeline.hset(keys["records"], "red-mug", text)
        pipeline.incr(keys["number"])
        pipeline.xadd(keys["stream"], {"n": 1, "e": "", "r": text})
        await pipeline.execute()

        async def gone() -> bool:
            return "red-mug" not in await shown(client, shop.pictures["red-mug"])

        await eventually(gone)


async def test_newer_words_do_not_cost_an_item_the_picture_that_only_the_table_has(
    opened: Open, shop: PlantedShop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def without_picture(items: pl.DataFrame) -> pl.DataFrame:
        is_lamp = pl.col("item_id") == "red-lamp"
        return items.with_columns(image=pl.when(~is_lamp).then("image"))

    photo = shop.pictures["red-lamp"]
    async with opened(shop) as client:
        before = (await client.search(image=photo, k=12, mode="vector")).results
        assert "red-lamp" in {one.item_id for one in before}
    async with opened(plant(tmp_path, without_picture)) as client:
        await client.add_items([replace(await item(client, "red-lamp"), title="crimson lantern")])
    async with opened(shop) as client:
        assert (await item(client, "red-lamp")).title == "crimson lantern"
        assert (await client.search(image=photo, k=12, mode="vector")).results == before
    assert "its vector is that of the table's words and picture" in caplog.text
