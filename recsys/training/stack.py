"""The networks above the towers, each a stage: item fusion, user encoder, ranker."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import polars as pl
from safetensors.torch import load_file, save_file
from torch import nn

from recsys.catalogue.embedder import ItemEmbedder
from recsys.config import FusionConfig, TrainConfig, UserConfig
from recsys.data.arrays import Floats, Ints
from recsys.data.interactions import Interactions
from recsys.models.fusion import ItemFusion, build_fusion
from recsys.models.user_encoder import UserEncoder, build_user_encoder
from recsys.training.inputs import Behaviour, Material
from recsys.training.items import ItemClasses, ItemTrainingData, train_items
from recsys.training.known import KnownItems
from recsys.training.rankers import FittedRanking, fit_ranking
from recsys.training.stages import Runtime
from recsys.training.users import UserEncoders, train_users

WEIGHTS = "weights.safetensors"

M = TypeVar("M", bound=nn.Module)


class FusedItems(NamedTuple):
    """A trained fusion, and the embeddings that it gives the catalogue's items."""

    fusion: ItemFusion
    embeddings: Floats  # (N, D)
    key: str  # of the stage


class Stack(NamedTuple):
    """The trained networks above the towers.

    Args:
        fused: Fusion and item embeddings.
        items: What the events say of the items; None without events.
        ranking: User encoders and rankers; None without events.
    """

    fused: FusedItems
    items: KnownItems | None
    ranking: FittedRanking | None


def train_stack(
    material: Material,
    items: KnownItems | None,
    config: TrainConfig,
    runtime: Runtime,
    *,
    suffix: str = "",
    served: bool = True,
) -> Stack:
    """Return fusion, user encoders and rankers: the stages "items", "users" and "ranker".

    Args:
        material: Training inputs.
        items: What the events said of the items; None without events.
        config: Sizes and schedules.
        runtime: How to run the stages.
        suffix: Ending of the stages' names, for ablations.
        served: Whether what learned from all events is wanted, beside what is evaluated.
    """
    fused = fuse_items(material, config.fusion, runtime, suffix=suffix)
    behaviour = material.shop.behaviour
    if items is None or behaviour is None:
        return Stack(fused, None, None)
    encoders = fit_user_encoders(
        behaviour, fused, config.users, runtime, suffix=suffix, served=served
    )
    ranking = fit_ranking(
        behaviour, fused.embeddings, encoders, items, config.ranker, runtime, suffix=suffix
    )
    return Stack(fused, items, ranking)


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
    fusion = _load(build_fusion(config, dims), stage.folder)
    embedder = ItemEmbedder(None, None, fusion, device=runtime.device)
    return FusedItems(fusion, embedder.fuse(material.modalities), stage.key)


def fit_user_encoders(
    behaviour: Behaviour,
    fused: FusedItems,
    config: UserConfig,
    runtime: Runtime,
    *,
    suffix: str = "",
    served: bool = True,
    start: UserEncoder | None = None,
) -> UserEncoders:
    """Return the user encoders of the stage "users".

    Args:
        behaviour: Events, and the moments at which they are cut.
        fused: Item embeddings.
        config: Sizes and schedule.
        runtime: How to run the stage.
        suffix: Ending of the stage's name, for ablations.
        served: As for ``train_stack``.
        start: Encoder that learned before the first cut, to go on from; ``fused.key`` must depend
            on it. None starts from the beginning.
    """
    interactions = behaviour.interactions
    events = {
        "first": interactions.before(behaviour.cuts_us[0]),
        "held_out": interactions.before(behaviour.cuts_us[-1]),
    }
    if served:
        events["served"] = interactions

    found, key = _fit_encoders(behaviour, fused, config, runtime, f"users{suffix}", events, start)
    return UserEncoders(found["first"], found["held_out"], found.get("served"), key)


def fit_first_encoder(
    behaviour: Behaviour, fused: FusedItems, config: UserConfig, runtime: Runtime
) -> UserEncoder:
    """Return the user encoder of the stage "users-first", trained before the first cut.

    It is ``first`` of :func:`fit_user_encoders`, without the time that the later ones take.

    Args:
        behaviour: Events, and the moments at which they are cut.
        fused: Item embeddings.
        config: Sizes and schedule.
        runtime: How to run the stage.
    """
    events = {"first": behaviour.interactions.before(behaviour.cuts_us[0])}
    found, _ = _fit_encoders(behaviour, fused, config, runtime, "users-first", events, None)
    return found["first"]


def _fit_encoders(
    behaviour: Behaviour,
    fused: FusedItems,
    config: UserConfig,
    runtime: Runtime,
    name: str,
    events: Mapping[str, Interactions],
    start: UserEncoder | None,
) -> tuple[dict[str, UserEncoder], str]:
    """Return an encoder for each of these events, each going on from the one before, and a key."""

    def train(folder: Path) -> None:
        encoder = start
        for part, past in events.items():
            encoder = train_users(
                past,
                fused.embeddings,
                available_from(behaviour.items, past),
                config,
                runtime.training_run(folder / part),
                start=encoder,
            )
            _save(encoder, folder / part)

    stage = runtime.workspace.run(
        name,
        {"items": fused.key, "config": config.model_dump(), "encoders": [*events]},
        train,
    )
    dim, n_kinds = fused.embeddings.shape[1], len(behaviour.interactions.kind_names)
    found = {
        part: _load(build_user_encoder(config, dim=dim, n_kinds=n_kinds), stage.folder / part)
        for part in events
    }
    return found, stage.key


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


def available_from(items: pl.DataFrame, past: Interactions) -> Ints:
    """Return the moment from which each item could be met (N,): its creation or first event."""
    first = np.full(past.n_items, np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(first, past.item_rows, past.timestamps_us)
    created = items["created_at"].dt.timestamp("us")
    known = created.is_not_null().to_numpy()
    return np.where(known, np.minimum(created.fill_null(0).to_numpy(), first), first)


def _save(module: nn.Module, folder: Path) -> None:
    weights = {name: value.contiguous() for name, value in module.state_dict().items()}
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / WEIGHTS)


def _load(module: M, folder: Path) -> M:
    module.load_state_dict(load_file(folder / WEIGHTS))
    return module.eval()
