"""The networks above the towers, each a stage: item fusion, user encoder, ranker."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from safetensors.torch import load_file, save_file
from torch import nn

from recsys.catalogue.embedder import ItemEmbedder
from recsys.catalogue.store import Catalogue
from recsys.config import FusionConfig, RankerConfig, TrainConfig, UserConfig
from recsys.data.arrays import Floats, Ints
from recsys.data.interactions import Interactions
from recsys.models.fusion import ItemFusion, build_fusion
from recsys.models.ranker import Ranker, build_ranker
from recsys.models.user_encoder import UserEncoder, build_user_encoder
from recsys.ranking.features import FEATURES, build_item_table
from recsys.ranking.statistics import build_statistics
from recsys.training.cuts import on_offer
from recsys.training.inputs import Material, ShopData
from recsys.training.items import ItemClasses, ItemTrainingData, train_items
from recsys.training.ranking import (
    RankingExamples,
    Snapshot,
    answers_between,
    sample_examples,
    train_ranker,
)
from recsys.training.stages import Runtime, Stage, Trained
from recsys.training.users import train_users

WEIGHTS = "weights.safetensors"

M = TypeVar("M", bound=nn.Module)


class FusedItems(NamedTuple):
    """A trained fusion, and the embeddings that it gives the catalogue's items."""

    fusion: ItemFusion
    embeddings: Floats  # (N, D)
    key: str  # of the stage


class RankingNetworks(NamedTuple):
    """The networks that rank items for a user."""

    user_encoder: UserEncoder
    ranker: Ranker


class Stack(NamedTuple):
    """The trained networks above the towers."""

    fused: FusedItems
    ranking: RankingNetworks | None  # None without events


def train_stack(
    material: Material, config: TrainConfig, runtime: Runtime, *, suffix: str = ""
) -> Stack:
    """Return fusion, user encoder and ranker: the stages "items", "users" and "ranker".

    Args:
        material: Training inputs.
        config: Sizes and schedules.
        runtime: How to run the stages.
        suffix: Ending of the stages' names, for ablations.
    """
    fused = fuse_items(material, config.fusion, runtime, suffix=suffix)
    if material.shop.interactions is None:
        return Stack(fused, None)
    shop = material.shop
    users = fit_user_encoder(shop, fused, config.users, runtime, suffix=suffix)
    ranker = fit_ranker(shop, fused, users, config.ranker, runtime, suffix=suffix)
    return Stack(fused, RankingNetworks(users.network, ranker))


def fuse_items(
    material: Material,
    config: FusionConfig,
    runtime: Runtime,
    *,
    suffix: str = "",
    without: Sequence[int] = (),
) -> FusedItems:
    """Return the fusion of the stage "items", and the embeddings of all items.

    Args:
        material: Training inputs.
        config: Size and schedule.
        runtime: How to run the stage.
        suffix: Ending of the stage's name.
        without: Item rows to exclude from training, with their photos.
    """
    teacher = material.shop.teacher
    stage = runtime.workspace.run(
        f"items{suffix}",
        {
            "material": material.key,
            "config": config.model_dump(exclude={"teacher"}),
            "teacher": teacher.key,
            "seed": runtime.seed,
            "without": list(without),
        },
        lambda folder: _save(_train_fusion(material, without, config, folder, runtime), folder),
    )
    dims = {name: values.shape[1] for name, values in material.modalities.embeddings.items()}
    fusion = _load(build_fusion(config, dims), stage)
    embedder = ItemEmbedder(None, None, fusion, device=runtime.device)
    return FusedItems(fusion, embedder.fuse(material.modalities), stage.key)


def fit_user_encoder(
    shop: ShopData, fused: FusedItems, config: UserConfig, runtime: Runtime, *, suffix: str = ""
) -> Trained[UserEncoder]:
    """Return the user encoder of the stage "users"; arguments as for :func:`train_stack`."""
    assert shop.interactions is not None, "callers check for events"
    stage = runtime.workspace.run(
        f"users{suffix}",
        {"items": fused.key, "config": config.model_dump()},
        lambda folder: _save(
            _train_encoder(shop, fused.embeddings, config, folder, runtime), folder
        ),
    )
    dim, n_kinds = fused.embeddings.shape[1], len(shop.interactions.kind_names)
    encoder = build_user_encoder(config, dim=dim, n_kinds=n_kinds)
    return Trained(_load(encoder, stage), stage.key)


def fit_ranker(
    shop: ShopData,
    fused: FusedItems,
    users: Trained[UserEncoder],
    config: RankerConfig,
    runtime: Runtime,
    *,
    suffix: str = "",
) -> Ranker:
    """Return the ranker of the stage "ranker"; arguments as for :func:`train_stack`."""

    def train(folder: Path) -> None:
        windows = take_snapshots(shop, fused.embeddings)
        shown = Tqdm(
            windows,
            desc="snapshots",
            total=len(shop.cuts_us) - 1,
            disable=not runtime.progress,
        )
        examples = [_examples(one, users.network, config, runtime.seed) for one in shown]
        ranker = train_ranker(
            examples[:-1],
            examples[-1],
            config,
            runtime.training_run(folder, "cpu"),
        )
        _save(ranker, folder)

    stage = runtime.workspace.run(
        f"ranker{suffix}",
        {"users": users.key, "config": config.model_dump(), "features": FEATURES},
        train,
    )
    return _load(build_ranker(config, len(FEATURES)), stage)


def take_snapshots(shop: ShopData, embeddings: Floats) -> Iterator[Snapshot]:
    """Yield for each cut what was known then, and what was bought from then until the next.

    Args:
        shop: Tables with events.
        embeddings: Item embeddings (N, D).
    """
    interactions = shop.interactions
    assert interactions is not None, "callers check for events"
    catalogue = Catalogue(shop.dataset.items, embeddings)
    targets = interactions.of_kinds(shop.target_kinds)
    target_kinds = torch.tensor([name in shop.target_kinds for name in interactions.kind_names])
    histories = interactions.histories()
    for cut_us, next_us in pairwise(shop.cuts_us):
        statistics = build_statistics(interactions, cut_us)
        yield Snapshot(
            cut_us=cut_us,
            table=build_item_table(catalogue, statistics, target_kinds),
            histories=histories,
            answers=answers_between(targets, cut_us, next_us),
            candidates=np.flatnonzero(on_offer(shop.dataset.items, interactions, cut_us)),
        )


def _train_fusion(
    material: Material, without: Sequence[int], config: FusionConfig, folder: Path, runtime: Runtime
) -> ItemFusion:
    shop, modalities = material.shop, material.modalities
    included = ~np.isin(np.arange(len(shop.dataset.items)), without)
    data = ItemTrainingData(
        modalities=modalities.embeddings,
        present=np.stack(
            [modalities.present[name] & included for name in modalities.embeddings], axis=1
        ),
        title_groups=shop.title_groups,
        classes=ItemClasses(shop.labels.indices, shop.labels.n_classes),
        pairs=shop.pairs,
        photos=material.photos,
        teacher=shop.teacher.embeddings if shop.teacher.key else None,
    )
    return train_items(
        data,
        config,
        runtime.training_run(folder),
        start=material.start,
    )


def _train_encoder(
    shop: ShopData, embeddings: Floats, config: UserConfig, folder: Path, runtime: Runtime
) -> UserEncoder:
    past = shop.past
    assert past is not None, "callers check for events"
    return train_users(
        past,
        embeddings,
        _available_from(shop, past),
        config,
        runtime.training_run(folder),
    )


def _available_from(shop: ShopData, past: Interactions) -> Ints:
    """Return the moment from which each item could be met (N,): its creation or first event."""
    first = np.full(past.n_items, np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(first, past.item_rows, past.timestamps_us)
    created = shop.dataset.items["created_at"].dt.timestamp("us")
    known = created.is_not_null().to_numpy()
    return np.where(known, np.minimum(created.fill_null(0).to_numpy(), first), first)


def _examples(
    snapshot: Snapshot, encoder: UserEncoder, config: RankerConfig, seed: int
) -> RankingExamples:
    return sample_examples(
        snapshot,
        encoder,
        n_queries=config.n_queries,
        n_candidates=config.n_candidates,
        seed=seed,
    )


def _save(module: nn.Module, folder: Path) -> None:
    weights = {name: value.contiguous() for name, value in module.state_dict().items()}
    save_file(weights, folder / WEIGHTS)


def _load(module: M, stage: Stage) -> M:
    module.load_state_dict(load_file(stage.folder / WEIGHTS))
    return module.eval()
