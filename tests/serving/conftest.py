"""A bundle with planted behaviour and untrained towers: serving is tested, not learning."""

import io
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from recsys.bundle import Contents, RankingPart, write_bundle
from recsys.catalogue.embedder import ItemEmbedder, item_texts
from recsys.config import FusionConfig, RankerConfig, UserConfig
from recsys.data.interactions import build_interactions
from recsys.data.timestamps import to_us
from recsys.identification.calibration import Calibration, OperatingPoint
from recsys.identification.evidence import SOURCES, Gallery
from recsys.identification.stored import IdentificationPart
from recsys.models.fusion import build_fusion
from recsys.models.ranker import Ranker, build_ranker
from recsys.models.user_encoder import build_user_encoder
from recsys.ranking import calibration
from recsys.ranking.features import FEATURES
from recsys.ranking.scoring import UserRanker
from recsys.ranking.statistics import build_statistics
from recsys.schema import EventSchema, ItemSchema
from serving.client import AsyncClient
from serving.rpc.server import Service
from serving.state.connection import RedisConnection
from serving.state.embedded_redis import EmbeddedRedis
from serving.testing import running_service
from text.config import TextConfig
from text.encoder import TextEncoder
from text.networks.build import build_encoder
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
KINDS = ("mug", "lamp", "chair", "scarf")
END = datetime(2025, 6, 1, tzinfo=UTC)


class PlantedShop(NamedTuple):
    """A bundle, its pictures by item id, and the end of its events."""

    path: Path
    pictures: dict[str, bytes]
    end: datetime


def draw(colour: tuple[int, int, int], side: int) -> bytes:
    """Return a PNG of a coloured square of one of several sizes on grey."""
    pixels = np.full((32, 32, 3), 128, dtype=np.uint8)
    pixels[16 - side : 16 + side, 16 - side : 16 + side] = colour
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> PlantedShop:
    """Return a shop of 12 products: 4 kinds in 3 colours, bought by 6 users, 2 each.

    The ranker is planted: what resembles the history comes first, then what many bought.
    """
    return plant(tmp_path_factory.mktemp("bundles"))


def plant(
    root: Path,
    change: Callable[[pl.DataFrame], pl.DataFrame] = lambda items: items,
    *,
    items_as_of: datetime | None = END,
    classes: Mapping[str, Sequence[str]] = {},
) -> PlantedShop:
    """Write the bundle of the shop, with another items table if ``change`` makes one.

    Args:
        root: Folder for the bundle.
        change: Function from the items table to another one; it may leave items out.
        items_as_of: Time at which the items table was exported.
        classes: Class names of the targets of the vision tower.
    """
    drawn = {
        f"{colour}-{kind}": draw(rgb, 4 + 3 * size)
        for colour, rgb in COLOURS.items()
        for size, kind in enumerate(KINDS)
    }
    items = change(_items(drawn))
    pictures = {item_id: drawn[item_id] for item_id in items["item_id"]}
    embedder, vision, text = _towers(items, classes)
    events = _events(list(pictures))
    interactions = build_interactions(events, list(pictures))
    users, ranking = UserConfig(width=8, heads=2, depth=1), RankerConfig(hidden=4)
    torch.manual_seed(1)
    user_encoder = build_user_encoder(users, dim=16, n_kinds=len(interactions.kind_names))
    photos = embedder.queries([None] * len(pictures), list(pictures.values()))
    end_us = int(END.timestamp()) * 1_000_000
    contents = Contents(
        items=items,
        item_embeddings=embedder.items(items, list(pictures.values())),
        fusion=embedder.fusion,
        vision=vision,
        text=text,
        ranking=RankingPart(
            events=events,
            ranker=UserRanker(user_encoder, _ranker(ranking), calibrations=CALIBRATIONS),
            statistics=build_statistics(interactions, end_us, target_kinds=("purchase",)),
            target_kinds=("purchase",),
            split_us=end_us,
        ),
        identification=_identification(torch.from_numpy(photos)),
        items_as_of_us=to_us("items_as_of", items_as_of) if items_as_of is not None else None,
    )
    return PlantedShop(write_bundle(contents, root), pictures, END)


@pytest.fixture(scope="session")
def strange_photo() -> bytes:
    """Return a photo of nothing in the shop."""
    return draw((250, 250, 20), 15)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """Yield a running Redis that tests share, each under its own namespace."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
async def connection(redis_server: EmbeddedRedis) -> AsyncIterator[RedisConnection]:
    """Yield a connection to the shared Redis."""
    connection = RedisConnection(redis_server.url, timeout_s=2)
    yield connection
    await connection.close()


@pytest.fixture
async def service(
    shop: PlantedShop, redis_server: EmbeddedRedis, namespace: str
) -> AsyncIterator[Service]:
    """Yield a service on the shared Redis."""
    async with running_service(shop.path, redis=redis_server.url, namespace=namespace) as service:
        yield service


@pytest.fixture
async def client(service: Service) -> AsyncIterator[AsyncClient]:
    """Yield a client of ``service``."""
    async with AsyncClient(service.address) as client:
        yield client


@pytest.fixture
def namespace() -> str:
    """Return a namespace that no other test uses."""
    return uuid.uuid4().hex


def _identification(pictures: torch.Tensor) -> IdentificationPart:
    """Return an identification that knows a product from a cosine of 0.98 to its picture."""
    rows = torch.arange(len(pictures))
    gallery = Gallery(pictures, rows, pictures[:0], rows[:0], head_rows=rows[:0])
    point, others = OperatingPoint(0.5), (0.0,) * (len(SOURCES) - 1)
    calibration = Calibration((100.0, *others), (0.93, *others), 5.0, known=point, named=point)
    return IdentificationPart(gallery, calibration)


def _items(pictures: dict[str, bytes]) -> pl.DataFrame:
    rows = [
        {
            "item_id": item_id,
            "title": f"{item_id.replace('-', ' ')} number {row}",
            "image": f"{item_id}.png",
            "category": ["home", item_id.split("-")[1]],
            "price": 10.0 + row,
            "attributes": [{"key": "colour", "value": item_id.split("-")[0]}],
            "available": item_id != "blue-scarf",
            "created_at": END - timedelta(days=300),
        }
        for row, item_id in enumerate(pictures)
    ]
    frame = pl.DataFrame(rows).with_columns(description=pl.lit(None, dtype=pl.String))
    return ItemSchema.validate(frame.select(ItemSchema.column_names()), cast=True)


def _towers(
    items: pl.DataFrame, classes: Mapping[str, Sequence[str]]
) -> tuple[ItemEmbedder, VisionTower, TextEncoder]:
    torch.manual_seed(0)
    vision = VisionTower(build_backbone("test_resnet", size=32), dim=16, classes=classes).eval()
    for head in vision.heads:  # far enough from uniform for some guesses to be sure
        torch.nn.init.normal_(head.weight, std=4.0)  # type: ignore[arg-type]
    config = TextConfig(hidden=16, layers=1, heads=2, vocab_size=400)
    text = build_encoder(config, [one or "" for one in item_texts(items)], seed=0)
    dims = {"text": text.dim, "image": vision.dim}
    fusion = build_fusion(FusionConfig(dim=16, hidden=16), dims).eval()
    return ItemEmbedder(vision, text, fusion), vision, text


def _events(item_ids: list[str]) -> pl.DataFrame:
    rows = [
        {
            "user_id": f"user-{user}",
            "item_id": item_ids[(user * step) % len(item_ids)],
            "kind": kind,
            "timestamp": END - timedelta(days=40 - user, hours=step),
            "quantity": 1.0,
            "value": None,
        }
        for user in range(6)
        for step, kind in ((1, "view"), (2, "purchase"))
    ]
    return EventSchema.validate(pl.DataFrame(rows), cast=True)


# Where the user's own items are left out, the shop has no probabilities.
CALIBRATIONS = calibration.Calibrations(
    all=calibration.Calibration(
        center=0.0,
        spread=1.0,
        scores=(-1.0, 2.0),
        log_odds=(-5.0, -1.0),
        effects=(calibration.Effect(0.3, 0.0, 9.0),) * 3,
    )
)


def _ranker(config: RankerConfig) -> Ranker:
    ranker = build_ranker(config, len(FEATURES)).eval()
    with torch.no_grad():
        for parameter in ranker.parameters():
            parameter.zero_()
        ranker.wide.weight[0, FEATURES.index("max_similarity")] = 1.0
        ranker.wide.weight[0, FEATURES.index("users_ever")] = 0.01
    return ranker
