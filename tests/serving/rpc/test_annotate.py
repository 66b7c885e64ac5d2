"""Annotations of photos over the wire, alone and with the answer of ``Identify``."""

import asyncio
import io
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageDraw, ImageFont

from recsys.answers import WORDS_UNREAD, Annotation
from recsys.bundle import Bundle, Contents, write_bundle
from recsys.config import FusionConfig
from recsys.curation.annotation import annotate
from recsys.errors import InvalidArgumentError, InvalidImageError, MissingPartError
from recsys.identifier import ProductIdentifier
from recsys.models.fusion import build_fusion
from recsys.recommender import Recommender
from recsys.schema import ItemSchema
from serving.client import AsyncClient, Client
from serving.rpc.server import Service
from serving.state.embedded_redis import EmbeddedRedis
from serving.testing import running_service
from tests.counting import count_decodes
from tests.serving.conftest import PlantedShop, plant
from text.config import TextConfig
from text.networks.build import build_encoder
from vision.errors import MissingExtraError
from vision.tower import VisionTower

CLASSES = {
    "category_1": ["home", "toys"],
    "category_2": ["home > lamp", "home > mug", "toys > car"],
    "attribute_colour": ["blue", "green", "red"],
    "attribute_fabric": ["cotton", "wool"],
    "item": ["red-mug", "red-lamp"],
}


@pytest.fixture(scope="module")
def headed(tmp_path_factory: pytest.TempPathFactory) -> PlantedShop:
    """Return the planted shop with a tower that has heads."""
    return plant(tmp_path_factory.mktemp("headed"), classes=CLASSES)


@pytest.fixture
async def service(
    headed: PlantedShop, redis_server: EmbeddedRedis, namespace: str
) -> AsyncIterator[Service]:
    """Yield a service over the bundle with heads, in place of the one of the other tests."""
    async with running_service(headed.path, redis=redis_server.url, namespace=namespace) as service:
        yield service


def check_same(found: Annotation, bundle: Bundle, photo: bytes, min_probability: float) -> None:
    """Fail unless an answer says what the table of ``annotate`` does."""
    row = annotate(bundle, [photo], min_probability=min_probability).row(0, named=True)
    assert found.bundle_version == bundle.version
    assert found.category == tuple(row["category"] or ())
    assert found.category_probability == pytest.approx(row["category_probability"], abs=1e-5)
    assert set(found.attributes) == {"colour", "fabric"}
    for name, guess in found.attributes.items():
        assert guess.value == row[f"attribute_{name}"]
        wanted = row[f"attribute_{name}_probability"]
        assert guess.probability == pytest.approx(wanted, abs=1e-5)
    assert [(one.name, one.share) for one in found.colours] == [
        (one["colour"], one["share"]) for one in row["colours"]
    ]


@pytest.mark.parametrize("min_probability", [0.0, 0.5, 0.9, 1.0])
async def test_answers_are_those_of_the_table_and_of_the_library(
    client: AsyncClient, headed: PlantedShop, min_probability: float
) -> None:
    bundle = Bundle(headed.path)
    recommender = Recommender(bundle)
    for photo in headed.pictures.values():
        found = await client.annotate(photo, min_probability=min_probability)
        check_same(found, bundle, photo, min_probability)
        assert found == recommender.annotate(photo, min_probability=min_probability)


async def test_both_clients_fill_in_what_is_at_least_half_probable(
    service: Service, client: AsyncClient, headed: PlantedShop
) -> None:
    photo = headed.pictures["red-mug"]
    half = await client.annotate(photo, min_probability=0.5)
    with Client(service.address) as blocking:
        assert await asyncio.to_thread(blocking.annotate, photo) == half
    assert await client.annotate(photo) == half
    assert service.telemetry.value("recsys_requests_total", method="Annotate", code="OK") == 3


async def test_a_tower_without_heads_names_the_colours(
    shop: PlantedShop, redis_server: EmbeddedRedis, namespace: str
) -> None:
    async with (
        running_service(shop.path, redis=redis_server.url, namespace=namespace) as service,
        AsyncClient(service.address) as client,
    ):
        found = await client.annotate(shop.pictures["red-chair"])
    assert (found.category, found.category_probability, found.attributes) == ((), None, {})
    assert [colour.name for colour in found.colours] == ["red"]


async def test_words_are_read_where_they_are_asked_for(
    service: Service, headed: PlantedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = Image.new("RGB", (200, 80), (235, 235, 225))
    font = ImageFont.load_default(36)
    ImageDraw.Draw(picture).text((10, 20), "KEFIR", fill=(20, 30, 60), font=font)
    file = io.BytesIO()
    picture.save(file, "PNG")
    photo = file.getvalue()
    async with AsyncClient(service.address, timeout_s=60) as patient:  # the networks are loaded
        plain, read = [await patient.annotate(photo, read_words=wanted) for wanted in (False, True)]
    assert read == Recommender(Bundle(headed.path)).annotate(photo, read_words=True)
    assert [one.text for one in read.words] == ["KEFIR"]
    assert 0.5 <= read.words[0].probability <= 1
    assert (plain.words, plain.degraded, read.degraded) == ((), (), ())
    assert replace(read, words=()) == plain
    table = annotate(Bundle(headed.path), [photo], read_words=True)
    assert table["words"].to_list() == [[asdict(one) for one in read.words]]
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with Client(service.address) as blocking:
        without = await asyncio.to_thread(blocking.annotate, photo, read_words=True)
    assert (without.words, without.degraded) == ((), (WORDS_UNREAD,))
    with pytest.raises(MissingExtraError, match="reading words needs rapidocr"):
        annotate(Bundle(headed.path), [photo], read_words=True)


@pytest.mark.parametrize("min_probability", [-0.1, 1.5, float("nan")])
async def test_a_lowest_probability_that_is_none_is_refused(
    client: AsyncClient, headed: PlantedShop, min_probability: float
) -> None:
    with pytest.raises(InvalidArgumentError, match="min_probability must be from 0 to 1, got"):
        await client.annotate(headed.pictures["red-mug"], min_probability=min_probability)


async def test_photos_that_cannot_be_read_are_refused(client: AsyncClient) -> None:
    with pytest.raises(InvalidImageError, match="image must have 1 to 8388608 bytes, got 0"):
        await client.annotate(b"")
    with pytest.raises(InvalidImageError, match="image 0"):
        await client.annotate(b"not an image")
    with pytest.raises(InvalidImageError, match="8388608 bytes, got 8388609"):
        await client.annotate(bytes(8_388_609))


async def test_a_bundle_without_a_tower_names_the_part(
    tmp_path: Path, redis_server: EmbeddedRedis, namespace: str, strange_photo: bytes
) -> None:
    text = build_encoder(TextConfig(hidden=16, layers=1, heads=2, vocab_size=400), ["mug"], seed=0)
    rows = [dict.fromkeys(ItemSchema.column_names()) | {"item_id": "a", "available": True}]
    rows[0] |= {"category": [], "attributes": []}
    contents = Contents(
        items=ItemSchema.cast(pl.DataFrame(rows, schema=ItemSchema.create_empty().schema)),
        item_embeddings=np.ones((1, 8), np.float32),
        fusion=build_fusion(FusionConfig(dim=8, hidden=8), {"text": text.dim}),
        text=text,
        left_out=("vision: no item has a readable picture",),
    )
    path = write_bundle(contents, tmp_path / "blind")
    async with (
        running_service(path, redis=redis_server.url, namespace=namespace) as service,
        AsyncClient(service.address) as client,
    ):
        with pytest.raises(MissingPartError, match=r"no 'vision' part.*no item has a readable"):
            await client.annotate(strange_photo)


async def test_identify_annotates_and_offers_what_is_sold_from_one_decode_and_one_pass(
    client: AsyncClient,
    headed: PlantedShop,
    strange_photo: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = Bundle(headed.path)
    wanted = ProductIdentifier(Recommender(bundle)).identify(strange_photo, k=4)
    decodes, passes, outputs = count_decodes(monkeypatch), [], VisionTower.outputs
    monkeypatch.setattr(VisionTower, "outputs", lambda *args: (passes.append(1), outputs(*args))[1])
    found = await client.identify(strange_photo, k=4)
    assert dict(decodes) == {strange_photo: 1}
    assert len(passes) == 1
    assert found == wanted
    assert found.verdict == "unknown"
    assert found.annotation is not None
    check_same(found.annotation, bundle, strange_photo, 0.5)
    searched = await client.search(image=strange_photo, k=4)
    assert [one.item_id for one in found.similar] == [one.item_id for one in searched]
    for one, other in zip(found.similar, searched, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-5)
        assert one.source == "similar"


async def test_similar_items_are_for_sale_and_are_not_the_one_that_is_named(
    client: AsyncClient, headed: PlantedShop
) -> None:
    sold_out, sold = headed.pictures["blue-scarf"], headed.pictures["green-chair"]
    for photo, named in ((sold_out, "blue-scarf"), (sold, "green-chair")):
        found = await client.identify(photo, k=12)
        assert found.product_group is not None
        assert found.product_group.item_ids[0] == named
        others = set(headed.pictures) - {"blue-scarf", *found.product_group.item_ids}
        assert {one.item_id for one in found.similar} == others
        scores = [one.score for one in found.similar]
        assert scores == sorted(scores, reverse=True)


def test_several_views_share_the_pass_of_the_photo_as_it_is(headed: PlantedShop) -> None:
    identifier = ProductIdentifier(Recommender(Bundle(headed.path)))
    identifier._views = "crops"
    picture = Image.open(io.BytesIO(headed.pictures["red-lamp"]))
    found = identifier.identify(picture)
    assert found.annotation is not None
    check_same(found.annotation, Bundle(headed.path), headed.pictures["red-lamp"], 0.5)
