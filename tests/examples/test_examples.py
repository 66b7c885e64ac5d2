"""The examples run as in their docstrings, against a real service and bundle."""

import asyncio
import runpy
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from recsys.data.synthetic import Shop
from serving.client import AsyncClient
from serving.testing import running_service

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> Callable[..., None]:
    main: Callable[..., None] = runpy.run_path(str(EXAMPLES / name))["main"]
    return main


async def test_the_storefront_no_longer_shows_what_was_bought(
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


async def test_the_bot_answers_with_the_verdict_of_the_service(
    tiny_bundle: Path, tiny_shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tiny_shop.images / str(pl.read_parquet(tiny_shop.photos)["image"][0])
    async with running_service(tiny_bundle) as service, AsyncClient(service.address) as client:
        await asyncio.to_thread(load("photo_bot.py"), service.address, str(photo))
        answer = await client.identify(photo.read_bytes())
    said = capsys.readouterr().out
    beginnings = {
        "product": "This is",
        "group": "This is one of",
        "unsure": "One of these?",
        "unknown": "We do not seem to sell this",
    }
    assert said.startswith(beginnings[answer.verdict])


def test_the_comparison_prints_both_systems_and_their_difference(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load("offline_comparison.py")(str(tiny_bundle))
    bundle, newest, difference = (
        float(line[14:].split()[0]) for line in capsys.readouterr().out.splitlines()
    )
    assert difference == pytest.approx(bundle - newest, abs=2e-3)
