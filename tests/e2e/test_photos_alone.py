"""A bundle of labelled photos alone is served: with an empty catalogue, which may grow."""

from pathlib import Path

import polars as pl
import pytest

from recsys import Tables, train
from recsys.config import TrainConfig
from recsys.errors import MissingPartError
from serving.client import AsyncClient, Item
from serving.testing import running_service
from tests.recsys.training.mug_shop import draw_pictures

CONFIG = {
    "device": "cpu",
    "vision": {
        "backbone": "test_resnet",
        "pretrained": False,
        "size": 32,
        "dim": 8,
        "epochs": 1,
    },
    "fusion": {"dim": 8, "hidden": 8},
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    draw_pictures(tmp_path)
    kinds = pl.Series([["Mug"], ["Jug"], ["Mug"]], dtype=pl.List(pl.String))
    photos = pl.DataFrame(
        {"image": ["p0.png", "p1.png", "p2.png"], "category": kinds, "split": ["train"] * 3}
    )
    tables = Tables(photos=photos, images_root=tmp_path)
    return train(TrainConfig.model_validate(CONFIG), tmp_path / "out", tables=tables).bundle


async def test_the_catalogue_is_empty_until_items_are_added_and_what_is_missing_is_named(
    bundle: Path, tmp_path: Path
) -> None:
    photo = (tmp_path / "p0.png").read_bytes()
    async with running_service(bundle) as service, AsyncClient(service.address) as client:
        assert not (await client.search(image=photo)).results
        with pytest.raises(MissingPartError, match="no text encoder: query it with an image"):
            await client.search("mug")
        with pytest.raises(MissingPartError, match="no items table was given"):
            await client.identify(photo)
        seen = await client.annotate(photo, min_probability=0.0)
        assert seen.category in (("Mug",), ("Jug",))
        assert seen.colours
        with pytest.raises(MissingPartError, match="no events table was given"):
            await client.recommend("u")
        other = (tmp_path / "p1.png").read_bytes()
        await client.add_items([Item("a"), Item("b")], {"a": photo, "b": other})
        found = await client.search(image=photo)
        assert [result.item_id for result in found.results] == ["a", "b"]
