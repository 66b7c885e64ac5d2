"""Two nights of a shop, and replicas over the bundle of either that share their state."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from serving.client import AsyncClient, Item
from serving.testing import running_service
from tests.serving.conftest import PlantedShop, plant

Open = Callable[[PlantedShop], AbstractAsyncContextManager[AsyncClient]]


def next_night(items: pl.DataFrame) -> pl.DataFrame:
    """Return a table without the green mug, and with other prices and a new title."""
    is_lamp = pl.col("item_id") == "red-lamp"
    return items.filter(pl.col("item_id") != "green-mug").with_columns(
        pl.col("price") + 100,
        title=pl.when(is_lamp).then(pl.lit("crimson lantern")).otherwise("title"),
    )


@pytest.fixture(scope="session")
def newer(tmp_path_factory: pytest.TempPathFactory) -> PlantedShop:
    """Return the shop of the next night; its table is newer than every change of a test."""
    later = datetime(2100, 1, 1, tzinfo=UTC)
    return plant(tmp_path_factory.mktemp("newer"), next_night, items_as_of=later)


@pytest.fixture
def opened(redis_server: Any, namespace: str) -> Open:
    """Return what opens a replica over a bundle; all replicas share their state."""

    @asynccontextmanager
    async def opened(shop: PlantedShop) -> AsyncIterator[AsyncClient]:
        async with (
            running_service(shop.path, redis=redis_server.url, namespace=namespace) as service,
            AsyncClient(service.address) as client,
        ):
            yield client

    return opened


async def item(client: AsyncClient, item_id: str) -> Item:
    """Return an item as it is served."""
    return (await client.get_items([item_id])).items[0]
