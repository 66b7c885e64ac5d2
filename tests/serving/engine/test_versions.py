"""Bundles exchanged under load; everything real."""

import asyncio
import gc
import shutil
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from recsys.bundle.finding import point_to
from recsys.catalogue.filters import Filters
from recsys.errors import BundleError, InvalidArgumentError
from serving.client import AdminClient, AsyncClient, Event, Item
from serving.rpc.server import Service
from serving.testing import running_service
from tests.serving.conftest import plant
from tests.serving.waiting import eventually

ALL = Filters()


class TwoBundles(NamedTuple):
    """A folder with two bundles: one has no blue items, and the latest has no red ones."""

    folder: Path
    without_blue: str
    without_red: str
    photo: bytes


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> TwoBundles:
    folder = tmp_path_factory.mktemp("two")

    def without(colour: str, price: float) -> Callable[[pl.DataFrame], pl.DataFrame]:
        is_colour = pl.col("item_id").str.starts_with(colour)
        return lambda items: items.filter(~is_colour).with_columns(price=pl.lit(price))

    first = plant(folder, without("blue", 1.0))
    second = plant(folder, without("red", 2.0))
    return TwoBundles(folder, first.path.name, second.path.name, first.pictures["green-mug"])


@pytest.fixture
async def service(two: TwoBundles, redis_server: Any, namespace: str) -> AsyncIterator[Service]:
    """Yield a service that serves the bundle without blue items."""
    path = two.folder / two.without_blue
    async with running_service(path, redis=redis_server.url, namespace=namespace) as service:
        yield service


@pytest.fixture
async def client(service: Service) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(service.address, timeout_s=30) as client:
        yield client


def reads(client: AsyncClient, photo: bytes) -> list[Callable[[], Awaitable[Any]]]:
    """Return calls whose answers differ between the two bundles, and not by what others do now."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        *(lambda user=user: client.recommend(f"user-{user}", k=5, now=now) for user in range(3)),
        lambda: client.rank("user-1", ["green-mug", "green-lamp"], now=now),
        lambda: client.similar("green-mug", k=5),
        lambda: client.search("mug", k=5),
        lambda: client.identify(photo, k=3),
        lambda: client.get_items(["green-lamp"]),
    ]


def content(answer: Any) -> dict[str, float]:
    """Return what an answer says of its items, in its order."""
    if hasattr(answer, "items"):
        return {one.item_id: one.price for one in answer.items}
    results = answer.results if hasattr(answer, "results") else answer.candidates
    return {one.item_id: one.score for one in results}


def is_same(one: dict[str, float], other: dict[str, float]) -> bool:
    """Return whether two answers say the same; scores may differ in the last bits."""
    return list(one) == list(other) and one == pytest.approx(other, abs=1e-4)


async def test_no_call_fails_and_no_answer_mixes_versions_while_bundles_are_swapped(
    two: TwoBundles, service: Service, client: AsyncClient
) -> None:
    calls = reads(client, two.photo)
    right: dict[str, list[dict[str, float]]] = {}
    for version in (two.without_red, two.without_blue):
        await service.versions.swap(version)
        answers = [await call() for call in calls]
        assert {one.bundle_version for one in answers} == {version}
        right[version] = [content(one) for one in answers]
    differing = [not is_same(*pair) for pair in zip(*right.values(), strict=True)]
    assert sum(differing) >= len(calls) - 1  # the two candidates of Rank may fare alike
    answered: dict[str, int] = dict.fromkeys(right, 0)
    stopping = asyncio.Event()

    async def read(number: int) -> None:
        while not stopping.is_set():
            answer = await calls[number]()
            assert is_same(content(answer), right[answer.bundle_version][number])
            answered[answer.bundle_version] += 1

    async def write() -> None:
        while not stopping.is_set():
            await client.record_events([Event("writer", "green-mug", "view")])

    async def swap() -> None:
        try:
            for _ in range(3):
                await service.versions.swap(two.without_red)
                await service.versions.roll_back()
        finally:
            stopping.set()

    await asyncio.gather(swap(), write(), *(read(number) for number in range(len(calls))))

    assert min(answered.values()) > 0
    assert service.telemetry.value("recsys_bundle_info", version=two.without_blue) == 1
    assert service.telemetry.value("recsys_bundle_info", version=two.without_red) == 0
    await eventually(lambda: service.versions.status().closing == 0)


async def test_a_call_ends_with_the_bundle_that_it_began_with_which_is_then_released(
    two: TwoBundles, service: Service
) -> None:
    versions = service.versions
    with versions.answering("user-1") as engine:
        await versions.swap(two.without_red)
        assert versions.status().closing == 1
        assert (await engine.similar("red-mug", k=1, filters=ALL)).value.results
        with versions.answering("user-1") as other:
            assert other.version == two.without_red
    left = weakref.ref(engine._recommender)
    del engine, other
    gc.disable()  # the memory must not wait for it
    try:
        await eventually(lambda: versions.status().closing == 0)
        assert left() is None
    finally:
        gc.enable()


async def test_live_changes_outlive_a_swap(
    two: TwoBundles, service: Service, client: AsyncClient
) -> None:
    await client.add_items([Item("trumpet", title="golden trumpet")])
    await client.record_events([Event("newcomer", "trumpet", "view")])
    await service.versions.swap(two.without_red)

    assert (await client.recommend("newcomer", k=1)).results[0].item_id == "trumpet"


async def test_a_bundle_that_is_damaged_or_lacks_a_part_is_refused_and_the_served_one_stays(
    two: TwoBundles, service: Service, client: AsyncClient, tmp_path: Path
) -> None:
    folder = tmp_path / "bundles"
    shutil.copytree(two.folder, folder, symlinks=True)
    (folder / two.without_red / "items.parquet").write_bytes(b"")
    service.versions._folder = folder
    before = service.versions.status()

    with AdminClient(service.address) as admin:
        for refused, error, words in (
            (lambda: admin.swap(two.without_red), BundleError, "items.parquet was changed"),
            (lambda: admin.swap(), BundleError, "items.parquet was changed"),
            (lambda: admin.load(two.without_red), BundleError, "items.parquet was changed"),
            (lambda: admin.swap("0" * 16), BundleError, "must be a folder"),
            (lambda: admin.swap("../../etc"), InvalidArgumentError, "must have 16 digits"),
            (lambda: admin.roll_back(), BundleError, "is the first that this service serves"),
            (lambda: admin.load(two.without_blue), InvalidArgumentError, "than the served one"),
            (lambda: admin.load(share=1.5), InvalidArgumentError, "share must be between 0 and 1"),
        ):
            with pytest.raises(error, match=words):
                await asyncio.to_thread(refused)

    assert service.versions.status() == before
    assert (await client.similar("red-mug", k=1)).bundle_version == two.without_blue
    service.versions._served.engine.parts |= {"wisdom"}
    service.versions._folder = two.folder
    with pytest.raises(BundleError, match=r"but lacks \['wisdom'\]"):
        await service.versions.swap(two.without_red)


async def test_an_operator_swaps_and_rolls_back(two: TwoBundles, service: Service) -> None:
    def operate() -> None:
        with AdminClient(service.address) as admin:
            assert admin.swap().served_version == two.without_red  # the latest
            assert admin.swap().previous_version == two.without_blue  # nothing to do
            back = admin.roll_back()
            assert (back.served_version, back.previous_version) == (
                two.without_blue,
                two.without_red,
            )
            assert admin.load(two.without_red).loaded_version == two.without_red
            assert admin.bundles().arms == ()
            assert admin.swap(two.without_red).loaded_version is None
            assert admin.load(two.without_blue, share=0.5).arms[1].share == 0.5
            assert admin.unload().loaded_version is None

    await asyncio.to_thread(operate)


async def test_a_share_of_the_users_gets_the_loaded_bundle_and_each_user_always_the_same(
    two: TwoBundles, service: Service, client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="serving.engine.split")
    users = [f"visitor-{number}" for number in range(60)]

    async def versions_of(share: float) -> dict[str, str]:
        await service.versions.load(two.without_red, share=share)
        answers = [await client.recommend(user, k=1) for user in users]
        return {user: one.bundle_version for user, one in zip(users, answers, strict=True)}

    third, again, half = await versions_of(0.3), await versions_of(0.3), await versions_of(0.5)

    assert third == again
    loaded = {user for user, version in third.items() if version == two.without_red}
    assert 0 < len(loaded) < 40
    assert loaded < {user for user, version in half.items() if version == two.without_red}
    assert (await client.similar("green-mug", k=1)).bundle_version == two.without_blue
    split = service.versions.status().split
    assert split is not None
    assert sum(split.users.values()) == len(users)
    assert split.sample_ratio_p() is not None
    exposures = [one for one in caplog.messages if one.startswith("exposure")]
    assert len(exposures) == 3 * len(users)
    assert "visitor" not in "".join(exposures)


async def test_a_service_that_watches_its_folder_takes_the_latest_and_not_one_it_has_left(
    two: TwoBundles, redis_server: Any, namespace: str, tmp_path: Path
) -> None:
    folder = tmp_path / "bundles"
    shutil.copytree(two.folder, folder, symlinks=True)
    point_to(folder / two.without_blue)
    settings = {"redis": redis_server.url, "namespace": namespace}
    async with running_service(folder, **settings) as service:
        versions = service.versions
        watching = asyncio.create_task(versions.watch(look_s=0.01, retry_s=0.01))
        broken = folder / two.without_red / "items.parquet"
        whole = broken.read_bytes()
        broken.write_bytes(b"")
        point_to(folder / two.without_red)
        await asyncio.sleep(0.1)
        assert versions.status().served == two.without_blue
        broken.write_bytes(whole)
        await eventually(lambda: versions.status().served == two.without_red)
        await versions.roll_back()
        await asyncio.sleep(0.1)
        assert versions.status().served == two.without_blue
        watching.cancel()
