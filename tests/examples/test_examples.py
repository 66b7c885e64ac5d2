"""The examples run as their docstrings say, against a real service on a real bundle."""

import asyncio
import runpy
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from recsys.data.synthetic import Shop
from serving.testing import running_service

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> Callable[..., None]:
    main: Callable[..., None] = runpy.run_path(str(EXAMPLES / name))["main"]
    return main


async def test_the_storefront_shows_what_a_purchase_changes(
    tiny_bundle: Path, tiny_shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    user = pl.read_parquet(tiny_shop.events)["user_id"][0]
    async with running_service(tiny_bundle) as service:
        await asyncio.to_thread(load("storefront.py"), service.address, user)
    first, *results, after = capsys.readouterr().out.splitlines()
    assert first == f"bundle {tiny_bundle.name}, degraded: no"
    bought = results[0].split()[0]
    assert after.startswith("after buying the first: ['item-")
    assert bought not in after


@pytest.mark.parametrize(("sure", "wanted"), [(0.0, "This is"), (1.1, "One of these?")])
async def test_the_bot_names_one_product_where_it_is_sure_and_asks_where_it_is_not(
    sure: float,
    wanted: str,
    tiny_bundle: Path,
    tiny_shop: Shop,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # A studio picture without photos beside it is its own prototype: nothing is better known.
    photographed = pl.read_parquet(tiny_shop.photos).filter(split="train")["item_id"]
    item = (
        pl.read_parquet(tiny_shop.items)
        .filter(pl.col("image").is_not_null(), ~pl.col("item_id").is_in(photographed.implode()))
        .row(0, named=True)
    )
    async with running_service(tiny_bundle) as service:
        await asyncio.to_thread(
            load("photo_bot.py"), service.address, str(tiny_shop.images / item["image"]), sure
        )
    said = capsys.readouterr().out
    assert said.startswith(wanted)
    assert item["title"] in said


def test_the_comparison_pairs_the_bundle_with_a_ranking_of_ones_own(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load("offline_comparison.py")(str(tiny_bundle))
    bundle, newest, difference = (
        float(line[14:].split()[0]) for line in capsys.readouterr().out.splitlines()
    )
    assert difference == pytest.approx(bundle - newest, abs=2e-3)
