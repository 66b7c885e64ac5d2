"""The commands that export what a service was sent."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from serving.client import AsyncClient, Event
from serving.testing import running_service
from tests.serving.conftest import plant

Ask = Callable[..., Any]
Say = Callable[..., str]


def test_events_and_items_are_exported_beside_a_service_and_after_it(
    tmp_path: Path, ask: Ask, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, state, out = plant(tmp_path / "runs"), tmp_path / "state", tmp_path / "events"
    events = [
        Event("ann", "red-mug", kind, datetime(2026, 1, 1, tzinfo=UTC))
        for kind in ("view", "impression", "purchase")
    ]

    async def serve() -> Any:
        async with running_service(shop.path, state=state) as service:
            async with AsyncClient(service.address) as client:
                await client.record_events(events[:2])
                beside = await asyncio.to_thread(
                    ask, "events", "export", "--state", state, "--out", out
                )
                await client.record_events(events)
                await client.delete_items(["red-mug"])
            return beside

    beside = asyncio.run(serve())
    assert (beside["n_events"], beside["n_lost"]) == (2, 0)
    monkeypatch.setenv("RECSYS_STATE", str(state))
    assert say("events", "export", "--out", out).startswith("1 events in ")
    assert say("events", "export", "--out", out) == "no new events"
    table = tmp_path / "items.parquet"
    assert say("items", "export", shop.path, "--out", table).endswith(
        "items.parquet: 0 changed or new with 0 new pictures, 1 deleted"
    )
    assert "red-mug" not in pl.read_parquet(table)["item_id"]
    kinds = [pl.read_parquet(file)["kind"].to_list() for file in sorted(out.glob("*"))]
    assert kinds == [["view", "impression"], ["purchase"]]


def test_a_folder_in_which_no_service_ran_is_refused(tmp_path: Path, refusal: Say) -> None:
    said = refusal("events", "export", "--state", tmp_path, "--out", tmp_path / "events")
    assert said.startswith(f"state folder {tmp_path} must be that of a service, but no Redis ran")
