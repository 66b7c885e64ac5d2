"""Everything above the towers, for one choice of modalities: fusion, users, ranker."""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn

from recsys.catalogue.embedder import ItemEmbedder, Modalities
from recsys.catalogue.filters import Filters
from recsys.catalogue.store import Catalogue
from recsys.config import TrainConfig
from recsys.data.dataset import Dataset
from recsys.data.interactions import Interactions, Ints
from recsys.models.fusion import ItemFusion, build_fusion
from recsys.models.ranker import Ranker, build_ranker
from recsys.models.user_encoder import UserEncoder, build_user_encoder
from recsys.ranking.features import FEATURES, build_item_table
from recsys.ranking.statistics import build_statistics
from recsys.training.items import IMAGE, ItemTrainingData, train_items
from recsys.training.labels import Labels, photo_rows, title_groups
from recsys.training.pairs import item_pairs
from recsys.training.ranking import Snapshot, answers_between, sample_examples, train_ranker
from recsys.training.stages import Stage, Workspace
from recsys.training.teacher import load_teacher
from recsys.training.users import train_users

Floats = NDArray[np.float32]
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Material:
    """What every variant is trained on.

    Args:
        dataset: The validated tables.
        labels: Class labels of the items.
        modalities: Tower outputs of the items.
        photos: Tower outputs of the photos (n, D_image), or None.
        interactions: All events, or None without any.
        target_kinds: Event kinds to recommend for.
        cuts_us: Moments of the ranker's snapshots, earliest first; the split is the last entry.
        start: The fusion that the towers were aligned with, or None.
        key: Hash of all of the above, from the stages that made it.
    """

    dataset: Dataset
    labels: Labels
    modalities: Modalities
    photos: Floats | None
    interactions: Interactions | None
    target_kinds: tuple[str, ...]
    cuts_us: tuple[int, ...]
    start: ItemFusion | None
    key: str

    @property
    def past(self) -> Interactions | None:
        """Events before the first cut: the ranker learns from what is said of later ones."""
        return None if self.interactions is None else self.interactions.before(self.cuts_us[0])

    def only(self, modality: str) -> "Material":
        """Return the material with one modality alone, for an ablation."""
        kept = Modalities(
            {modality: self.modalities.embeddings[modality]},
            {modality: self.modalities.present[modality]},
        )
        photos = self.photos if modality == "image" else None
        key = f"{self.key}-{modality}"
        return replace(self, modalities=kept, photos=photos, start=None, key=key)


class FusedItems(NamedTuple):
    """A trained fusion, and what it makes of the catalogue."""

    fusion: ItemFusion
    embeddings: Floats  # (N, D)
    key: str  # of the stage


@dataclass(frozen=True)
class Variant:
    """Trained networks above the towers; the last two are None without events."""

    fused: FusedItems
    user_encoder: UserEncoder | None
    ranker: Ranker | None


def train_variant(
    material: Material,
    config: TrainConfig,
    workspace: Workspace,
    *,
    device: str,
    progress: bool,
    suffix: str = "",
) -> Variant:
    """Return fusion, user encoder and ranker, each a stage of the workspace.

    Args:
        material: What to train on.
        config: Sizes and schedules.
        workspace: Keeps the stages.
        device: Where to train.
        progress: Show bars.
        suffix: Of the stages' names, for ablations.
    """
    fused = fuse_items(material, config, workspace, device=device, progress=progress, suffix=suffix)
    embeddings = fused.embeddings
    if material.interactions is None:
        return Variant(fused, None, None)

    users_stage = workspace.run(
        f"users{suffix}",
        {"items": fused.key, "config": config.users.model_dump()},
        lambda folder: _save(
            _train_encoder(material, embeddings, config, folder, device, progress), folder
        ),
    )
    n_kinds = len(material.interactions.kind_names)
    encoder = _load(
        build_user_encoder(config.users, dim=config.fusion.dim, n_kinds=n_kinds), users_stage
    )
    ranker_stage = workspace.run(
        f"ranker{suffix}",
        {"users": users_stage.key, "config": config.ranker.model_dump()},
        lambda folder: _save(
            _train_ranker(material, embeddings, encoder, config, folder, progress), folder
        ),
    )
    return Variant(fused, encoder, _load(build_ranker(config.ranker, len(FEATURES)), ranker_stage))


def fuse_items(
    material: Material,
    config: TrainConfig,
    workspace: Workspace,
    *,
    device: str,
    progress: bool,
    suffix: str = "",
    without: Sequence[int] = (),
) -> FusedItems:
    """Return a fusion, a stage of the workspace, and the embeddings of all items.

    Args:
        material: What to train on.
        config: Of the fusion.
        workspace: Keeps the stage.
        device: Where to train.
        progress: Show bars.
        suffix: Of the stage's name.
        without: Rows of items that the fusion is not to meet, nor their photos.
    """
    teacher = load_teacher(config.fusion.teacher, material.dataset.items["item_id"].to_list())
    apart = {"without": list(without)} if without else {}
    stage = workspace.run(
        f"items{suffix}",
        {
            "material": material.key,
            "config": config.fusion.model_dump(),
            "teacher": hashlib.sha256(teacher.tobytes()).hexdigest(),
            "seed": config.seed,
            **apart,
        },
        lambda folder: _save(
            _train_fusion(material, teacher, without, config, folder, device, progress), folder
        ),
    )
    dims = {name: values.shape[1] for name, values in material.modalities.embeddings.items()}
    fusion = _load(build_fusion(config.fusion, dims), stage)
    embeddings = ItemEmbedder(None, None, fusion, device=device).fuse(material.modalities)
    return FusedItems(fusion, embeddings, stage.key)


def _train_fusion(
    material: Material,
    teacher: Floats,
    without: Sequence[int],
    config: TrainConfig,
    folder: Path,
    device: str,
    progress: bool,
) -> ItemFusion:
    items, photos = material.dataset.items, material.dataset.photos
    met = ~np.isin(np.arange(len(items)), without)
    images = material.modalities.embeddings.get(IMAGE)
    dim = images.shape[1] if images is not None else 0
    shown, pictured = np.empty(0, dtype=np.int64), np.empty((0, dim), dtype=np.float32)
    if photos is not None and material.photos is not None:
        rows = photo_rows(photos, items)
        usable = (rows >= 0) & (photos["split"].fill_null("train") == "train").to_numpy()
        shown, pictured = rows[usable], material.photos[usable]
    names = list(material.modalities.embeddings)
    data = ItemTrainingData(
        modalities=material.modalities.embeddings,
        present=np.stack([material.modalities.present[name] & met for name in names], axis=1),
        targets=material.labels.indices,
        n_classes=material.labels.n_classes,
        title_groups=title_groups(items),
        pairs=item_pairs(material.past, seed=config.seed),
        photos=pictured,
        photo_rows=shown,
        teacher=teacher,
    )
    return train_items(
        data,
        config.fusion,
        workdir=folder / "checkpoints",
        seed=config.seed,
        progress=progress,
        start=material.start,
        device=device,
    )


def _train_encoder(
    material: Material,
    embeddings: Floats,
    config: TrainConfig,
    folder: Path,
    device: str,
    progress: bool,
) -> UserEncoder:
    assert material.past is not None, "callers check for events"
    return train_users(
        material.past,
        embeddings,
        _available_from(material.dataset, material.past),
        config.users,
        workdir=folder / "checkpoints",
        seed=config.seed,
        progress=progress,
        device=device,
    )


def _available_from(dataset: Dataset, past: Interactions) -> Ints:
    """Return since when each item could be met (N,): its creation or its first event."""
    first = np.full(past.n_items, np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(first, past.item_rows, past.timestamps_us)
    created = dataset.items["created_at"].dt.timestamp("us")
    known = created.is_not_null().to_numpy()
    return np.where(known, np.minimum(created.fill_null(0).to_numpy(), first), first)


def _train_ranker(
    material: Material,
    embeddings: Floats,
    encoder: UserEncoder,
    config: TrainConfig,
    folder: Path,
    progress: bool,
) -> Ranker:
    windows = list(itertools.pairwise(material.cuts_us))
    examples = [
        sample_examples(
            take_snapshot(material, embeddings, cut_us, next_us),
            encoder,
            n_queries=config.ranker.n_queries,
            n_candidates=config.ranker.n_candidates,
            seed=config.seed,
        )
        for cut_us, next_us in Tqdm(windows, desc="snapshots", disable=not progress)
    ]
    return train_ranker(
        examples[:-1],
        examples[-1],
        config.ranker,
        workdir=folder / "checkpoints",
        seed=config.seed,
        progress=progress,
    )


def take_snapshot(material: Material, embeddings: Floats, cut_us: int, until_us: int) -> Snapshot:
    """Return what was known at ``cut_us`` and what was bought from then until ``until_us``."""
    interactions = material.interactions
    assert interactions is not None, "callers check for events"
    catalogue = Catalogue(material.dataset.items, embeddings)
    statistics = build_statistics(interactions, cut_us)
    kinds = torch.tensor([name in material.target_kinds for name in interactions.kind_names])
    on_offer = catalogue.mask(Filters(available_only=False), now_us=cut_us)
    # An item of unknown age counts as there once somebody has met it.
    unknown_age = material.dataset.items["created_at"].is_null().to_numpy()
    on_offer &= ~unknown_age | (statistics.buyers > 0)
    return Snapshot(
        cut_us=cut_us,
        table=build_item_table(catalogue, statistics, kinds),
        histories=interactions.histories(),
        answers=answers_between(interactions.of_kinds(material.target_kinds), cut_us, until_us),
        candidates=np.flatnonzero(on_offer),
    )


def _save(module: nn.Module, folder: Path) -> None:
    save_file(
        {name: value.contiguous() for name, value in module.state_dict().items()},
        folder / "weights.safetensors",
    )


def _load(module: M, stage: Stage) -> M:
    module.load_state_dict(load_file(stage.folder / "weights.safetensors"))
    return module.eval()
