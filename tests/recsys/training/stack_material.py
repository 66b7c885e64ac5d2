"""Tables, settings and random embeddings of a shop whose stack trains in a second."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch

import text.dataset
import vision.dataset
from recsys.catalogue.embedder import Modalities
from recsys.config import (
    DataConfig,
    FusionConfig,
    RankerConfig,
    TrainConfig,
    TreesConfig,
    UserConfig,
)
from recsys.data.dataset import Dataset
from recsys.data.interactions import Interactions, build_interactions
from recsys.data.quarantine import Quarantine
from recsys.schema import EventSchema, ItemSchema, PhotoSchema
from recsys.training.inputs import Behaviour, Material, ShopData
from recsys.training.items import ItemPhotos
from recsys.training.known import count_events
from recsys.training.labels import item_labels, title_groups
from recsys.training.pairs import item_pairs
from recsys.training.rankers import FittedRanking
from recsys.training.samples import PictureSamples
from recsys.training.stack import Stack, train_stack
from recsys.training.stages import Runtime, Workspace
from recsys.training.teacher import Teacher

START = datetime(2025, 1, 1, tzinfo=UTC)
N_ITEMS, N_USERS = 128, 16
CUTS_US = tuple(round((START + timedelta(days=day)).timestamp() * 1e6) for day in (40, 50, 60))
CONFIG = TrainConfig(
    seed=1,
    data=DataConfig(items="items.parquet"),
    fusion=FusionConfig(dim=6, hidden=4, epochs=1, batch_size=128),
    users=UserConfig(history_length=5, epochs=1, batch_size=64),
    ranker=RankerConfig(
        kind="network",
        hidden=4,
        epochs=1,
        n_candidates=10,
        trees=TreesConfig(trees=5, min_candidates=2),
    ),
)


def items() -> pl.DataFrame:
    """Return items, the last created late, the two before it of unknown age."""
    days: list[int | None] = [0] * (N_ITEMS - 3) + [None, None, 45]
    rows = [
        {
            "item_id": f"i{n:03}",
            "title": f"title {n}",
            "category": [("Fruit", "Wear")[n % 2]],
            "attributes": [],
            "available": n != 0,
            "created_at": None if days[n] is None else START + timedelta(days=days[n]),
        }
        for n in range(N_ITEMS)
    ]
    return pl.DataFrame(rows, schema=ItemSchema.create_empty().schema)


def events() -> pl.DataFrame:
    """Return events of the older items; one of unknown age is first met on day 45."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "user_id": f"u{user:02}",
            "item_id": f"i{rng.integers(N_ITEMS - 3):03}",
            "kind": ("buy", "view")[rng.integers(2)],
            "timestamp": START + timedelta(days=rng.uniform(0, 70)),
        }
        for user in range(N_USERS)
        for _ in range(20)
    ]
    met = {"user_id": "u00", "item_id": "i125", "kind": "view"}
    rows.append({**met, "timestamp": START + timedelta(days=45)})
    rows = [{**row, "quantity": 1.0, "value": None} for row in rows]
    return pl.DataFrame(rows, schema=EventSchema.create_empty().schema)


def shop(**changes: Any) -> ShopData:
    """Return what training reads of the tables, with some fields changed."""
    table, taken = items(), events()
    photos = pl.DataFrame(
        [
            {"image": "a.png", "item_id": f"i{n:03}", "category": [], "split": split}
            for n, split in enumerate(("train", None, "val", "test"))
        ],
        schema=PhotoSchema.create_empty().schema,
    )
    ids = table["item_id"].to_list()
    interactions = changes.pop("interactions", build_interactions(taken, ids))
    cuts_us = changes.pop("cuts_us", () if interactions is None else CUTS_US)
    past = None if interactions is None else interactions.before(cuts_us[0])
    return replace(
        ShopData(
            dataset=Dataset(table, taken, photos, None, Quarantine(())),
            labels=item_labels(table),
            title_groups=title_groups(table),
            teacher=Teacher(None, ids),
            interactions=interactions,
            target_kinds=("buy",),
            cuts_us=cuts_us,
            pairs=item_pairs(past, seed=CONFIG.seed),
            pictures=PictureSamples(vision.dataset.Samples([], {}, {}), None, None, ()),
            texts=text.dataset.Samples([]),
            left_out={},
        ),
        **changes,
    )


def behaviour(of: ShopData | None = None) -> Behaviour:
    """Return what ranking learns from in a shop with events."""
    found = (of or shop()).behaviour
    assert found is not None
    return found


def material(of: ShopData | None = None, **changes: Any) -> Material:
    """Return random embeddings of the shop's items and photos, with some fields changed."""
    rng = np.random.default_rng(1)
    embeddings = {
        name: rng.normal(size=(N_ITEMS, size)).astype(np.float32)
        for name, size in (("image", 5), ("text", 4))
    }
    present = {name: np.ones(N_ITEMS, dtype=np.bool_) for name in embeddings}
    present["image"][3] = False
    return replace(
        Material(
            shop=of or shop(),
            modalities=Modalities(embeddings, present),
            photos=ItemPhotos(rng.normal(size=(2, 5)).astype(np.float32), np.array([0, 1])),
            start=None,
            key="key",
        ),
        **changes,
    )


def known() -> Interactions:
    """Return the events of the shop."""
    interactions = shop().interactions
    assert interactions is not None
    return interactions


def made_runtime(folder: Path, seed: int = CONFIG.seed) -> Runtime:
    """Return a runtime on the processor with this folder as its workspace."""
    return Runtime(Workspace(folder, announce=lambda name: None), "cpu", seed=seed)


def trained(
    folder: Path, chosen: Material, config: TrainConfig = CONFIG, *, suffix: str = ""
) -> tuple[Stack, dict[str, bool]]:
    """Return the stack, and which of its stages were skipped."""
    runtime = made_runtime(folder, config.seed)
    taken = chosen.shop.behaviour
    items = None if taken is None else count_events(taken, runtime)
    stack = train_stack(chosen, items, config, runtime, suffix=suffix)
    return stack, {stage.name: stage.skipped for stage in runtime.workspace.stages}


def with_changed(keep_us: int) -> Material:
    """Return the material with every event at or after a moment moved to another item."""
    past = known()
    rows = np.where(
        past.timestamps_us < keep_us, past.item_rows, (past.item_rows + 5) % (N_ITEMS - 3)
    )
    return material(shop(interactions=replace(past, item_rows=rows)))


def of_kind(kind: Literal["auto", "trees", "network"]) -> TrainConfig:
    """Return the settings with another kind of ranker."""
    return CONFIG.model_copy(update={"ranker": CONFIG.ranker.model_copy(update={"kind": kind})})


def ranking_of(stack: Stack) -> FittedRanking:
    """Return what ranks in a stack that has it."""
    assert stack.ranking is not None
    return stack.ranking


def below(stack: Stack) -> tuple[torch.nn.Module, ...]:
    """Return fusion and user encoder, as held out."""
    return stack.fused.fusion, ranking_of(stack).held_out.encoder


def weights(module: torch.nn.Module) -> torch.Tensor:
    """Return all weights of a module as one vector."""
    return torch.cat([parameter.detach().ravel() for parameter in module.parameters()])
