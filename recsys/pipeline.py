"""From a configuration to a sealed bundle: every stage in order, skipped where nothing changed."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

import text.checkpoint
import vision.checkpoint
from recsys.bundle import Contents, Identification, write_bundle
from recsys.config import TrainConfig
from recsys.data import dataset as tables
from recsys.data.dataset import Dataset
from recsys.data.interactions import (
    MICROSECONDS_PER_DAY,
    Interactions,
    build_interactions,
)
from recsys.data.pictures import Progress
from recsys.data.quarantine import Quarantine
from recsys.data.splits import cut_times
from recsys.embedding import ItemEmbedder, Modalities, is_readable
from recsys.errors import DataError
from recsys.models.gallery import build_prototypes, fit_calibration, product_similarities
from recsys.statistics import build_statistics
from recsys.training.items import IMAGE
from recsys.training.labels import item_labels, photo_rows
from recsys.training.stages import Stage, Workspace
from recsys.training.towers import (
    TOWER,
    embed_dataset,
    label_pictures,
    load_embeddings,
    train_text,
    train_vision,
)
from recsys.training.variant import Material, Variant, train_variant
from text.encoder import TextEncoder
from vision.tower import VisionTower

STAGES = ".stages"  # beside the bundles; deleting it costs time, never results


@dataclass(frozen=True)
class Run:
    """A finished training run.

    Args:
        bundle: The sealed bundle.
        ablations: Sealed bundles of the variants with one modality, by name.
        dataset: The tables it was trained on.
        stages: What ran, in order, and how long it took.
        left_out: What was not trained and why.
    """

    bundle: Path
    ablations: Mapping[str, Path]
    dataset: Dataset
    stages: tuple[Stage, ...]
    left_out: tuple[str, ...]


def train(
    config: TrainConfig,
    out: Path,
    *,
    strict: bool = False,
    progress: bool = False,
    announce: Callable[[str], None] = lambda stage: None,
) -> Run:
    """Train on the configured tables and seal a bundle under ``out``.

    Args:
        config: From ``load_config``.
        out: Folder of bundles; stages are kept beside them.
        strict: Raise on the first bad row instead of going on without it.
        progress: Show bars.
        announce: Told the name of each stage before it runs.

    Raises:
        DataError: If a table cannot be used, or there are neither titles nor pictures.
    """
    device = _device(config.device)
    workspace = Workspace(out / STAGES, announce=announce)
    announce("check")
    with _checking(visible=progress) as advance:
        dataset = load_tables(config, strict=strict, progress=advance)
    left_out = _left_out(dataset)
    material, towers = _prepare(dataset, config, workspace, device=device, progress=progress)
    variant = train_variant(material, config, workspace, device=device, progress=progress)
    contents = _contents(material, variant, config, left_out, device=device)
    bundle = write_bundle(replace(contents, vision=towers[0], text=towers[1]), out)
    ablations = {}
    if config.evaluation.ablations and len(material.modalities.embeddings) > 1:
        for modality in material.modalities.embeddings:
            alone = material.only(modality)
            variant = train_variant(
                alone, config, workspace, device=device, progress=progress, suffix=f"-{modality}"
            )
            contents = _contents(alone, variant, config, left_out, device=device)
            ablations[f"{modality}-only"] = write_bundle(contents, out / STAGES / modality)
    return Run(bundle, ablations, dataset, tuple(workspace.stages), left_out)


def _device(name: str) -> str:
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def _checking(*, visible: bool) -> Iterator[Progress | None]:
    """Yield what shows how much of each table's pictures has been read."""
    if not visible:
        yield None
        return
    bar: Tqdm | None = None

    def advance(task: str, done: int, total: int) -> None:
        nonlocal bar
        if bar is None or total != bar.total or done < bar.n:  # the first table, or the next
            if bar is not None:
                bar.close()
            bar = Tqdm(desc=task, total=total)
        bar.update(done - bar.n)

    try:
        yield advance
    finally:
        if bar is not None:
            bar.close()


def load_tables(
    config: TrainConfig, *, strict: bool = False, progress: Progress | None = None
) -> Dataset:
    """Return the configured tables, bad rows quarantined, or raised on when ``strict``."""
    return tables.load_dataset(
        *_sources(config),
        now=datetime.now(UTC),
        strict=strict,
        check_image=is_readable,
        progress=progress,
    )


def check_tables(config: TrainConfig, *, progress: Progress | None = None) -> Quarantine:
    """Return what validation finds in the configured tables, even where nothing can be used."""
    return tables.check_tables(
        *_sources(config), now=datetime.now(UTC), check_image=is_readable, progress=progress
    )


def _sources(config: TrainConfig) -> tuple[str, str | None, str | None, Path | None]:
    data = config.data
    root = Path(data.images_root) if data.images_root else None
    return data.items, data.events, data.photos, root


def _left_out(dataset: Dataset) -> tuple[str, ...]:
    items = dataset.items
    reasons = []
    if not _has_pictures(dataset):
        reasons.append("vision: no item and no photo has a readable picture")
    if not _has_titles(dataset):
        reasons.append("text: no item has a title or description")
    if len(reasons) == 2:
        raise DataError(
            f"items must have titles or pictures, none of the {len(items)} items has either"
        )
    if dataset.events is None:
        reasons.append("ranking: no events table was given")
    if _labelled_photos(dataset, "val") is None:
        reasons.append("identification: no photos of the val split name their item")
    return tuple(reasons)


def _has_pictures(dataset: Dataset) -> bool:
    return dataset.items["image"].count() > 0


def _has_titles(dataset: Dataset) -> bool:
    return dataset.items["title"].count() + dataset.items["description"].count() > 0


def _labelled_photos(dataset: Dataset, split: str) -> "np.ndarray | None":
    """Return the positions of a split's photos that name an item, None if there are none."""
    if dataset.photos is None or not _has_pictures(dataset):
        return None
    rows = photo_rows(dataset.photos, dataset.items)
    chosen = np.flatnonzero(
        (rows >= 0) & (dataset.photos["split"].fill_null("train") == split).to_numpy()
    )
    return chosen if len(chosen) else None


def _prepare(
    dataset: Dataset, config: TrainConfig, workspace: Workspace, *, device: str, progress: bool
) -> tuple[Material, tuple[VisionTower | None, TextEncoder | None]]:
    """Return what variants are trained on, and the towers."""
    labels = item_labels(dataset.items)
    tables = {"tables": dataset.fingerprint(), "seed": config.seed}
    keys, tower, encoder = [], None, None
    if _has_pictures(dataset):
        stage = workspace.run(
            "vision",
            {**tables, "config": config.vision.model_dump()},
            lambda folder: train_vision(
                dataset, label_pictures(dataset), config, folder, progress=progress
            ),
        )
        keys.append(stage.key)
        tower = vision.checkpoint.load(stage.folder / TOWER)
    if _has_titles(dataset):
        stage = workspace.run(
            "text",
            {**tables, "config": config.text.model_dump()},
            lambda folder: train_text(dataset, labels, config, folder, progress=progress),
        )
        keys.append(stage.key)
        encoder = text.checkpoint.load(stage.folder / TOWER)
    stage = workspace.run(
        "embeddings",
        {**tables, "towers": keys},
        lambda folder: embed_dataset(
            dataset, tower, encoder, folder, device=device, progress=progress
        ),
    )
    modalities, photos = load_embeddings(stage.folder)
    interactions = _interactions(dataset)
    targets = _target_kinds(interactions, config.data.target_kinds)
    cuts_us = _cuts_us(interactions, config)
    key = json.dumps([stage.key, targets, cuts_us])
    material = Material(dataset, labels, modalities, photos, interactions, targets, cuts_us, key)
    return material, (tower, encoder)


def _interactions(dataset: Dataset) -> Interactions | None:
    if dataset.events is None:
        return None
    return build_interactions(dataset.events, dataset.items["item_id"].to_list())


def _target_kinds(interactions: Interactions | None, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Return the kinds to recommend for: those wanted, else purchases, else all."""
    if interactions is None:
        return ()
    if wanted:
        interactions.of_kinds(wanted)  # raises for a kind that does not occur
        return wanted
    return (
        ("purchase",) if "purchase" in interactions.kind_names else tuple(interactions.kind_names)
    )


def _cuts_us(interactions: Interactions | None, config: TrainConfig) -> tuple[int, ...]:
    """Return the snapshots' moments, earliest first, then the split; empty without events."""
    if interactions is None:
        return ()
    # Midnight after the last event, so that windows are whole days.
    end_us = (
        int(interactions.timestamps_us[-1]) // MICROSECONDS_PER_DAY + 1
    ) * MICROSECONDS_PER_DAY
    split = config.split
    if split.at is not None:
        at = split.at if split.at.tzinfo else split.at.replace(tzinfo=UTC)
        split_us = round(at.timestamp() * 1e6)
    else:
        split_us = cut_times(end_us, split.horizon, 1)[0]
    cuts = cut_times(split_us, split.horizon, split.n_cuts)[::-1]
    if not interactions.timestamps_us[0] < cuts[0]:
        raise DataError(
            f"events must begin before the first of {split.n_cuts} cuts of {split.horizon}, "
            "got later ones; shorten [split] horizon, lower n_cuts, or set a later at"
        )
    return (*cuts, split_us)


def _contents(
    material: Material,
    variant: Variant,
    config: TrainConfig,
    left_out: tuple[str, ...],
    *,
    device: str,
) -> Contents:
    contents = Contents(
        items=material.dataset.items,
        item_embeddings=variant.item_embeddings,
        fusion=variant.fusion,
        fusion_config=config.fusion,
        identification=_identification(material, variant, device=device),
        left_out=left_out,
    )
    if material.interactions is None:
        return contents
    end_us = int(material.interactions.timestamps_us[-1]) + 1
    return replace(
        contents,
        events=material.dataset.events,
        user_encoder=variant.user_encoder,
        user_config=config.users,
        ranker=variant.ranker,
        ranker_config=config.ranker,
        statistics=build_statistics(material.interactions, end_us),
        target_kinds=material.target_kinds,
        split_us=material.cuts_us[-1],
    )


def _identification(material: Material, variant: Variant, *, device: str) -> Identification | None:
    """Return the products' prototypes, and a calibration on the held-out photos.

    A prototype is the mean of a product's own picture and of its training photos. The picture is
    taken alone, without the title: what photos show is closer to other photos than to an item that
    words are part of, so that a photo of the wrong product would beat the right item.
    """
    chosen = {split: _labelled_photos(material.dataset, split) for split in ("train", "val")}
    if chosen["val"] is None or material.photos is None:
        return None
    assert material.dataset.photos is not None, "a split of them was found"
    fused = torch.from_numpy(fuse_photos(material.photos, variant, device=device))
    rows = torch.from_numpy(photo_rows(material.dataset.photos, material.dataset.items))
    train = chosen["train"] if chosen["train"] is not None else np.empty(0, dtype=np.int64)
    pictured = np.flatnonzero(material.modalities.present[IMAGE])
    pictures = fuse_photos(material.modalities.embeddings[IMAGE][pictured], variant, device=device)
    prototypes, prototype_rows = build_prototypes(
        torch.cat([fused[train], torch.from_numpy(pictures)]),
        torch.cat([rows[train], torch.from_numpy(pictured)]),
    )
    items = torch.from_numpy(variant.item_embeddings)
    similarities = product_similarities(fused[chosen["val"]], items, prototypes, prototype_rows)
    calibration = fit_calibration(similarities, rows[chosen["val"]])
    return Identification(prototypes, prototype_rows, calibration)


def fuse_photos(photos: np.ndarray, variant: Variant, *, device: str) -> np.ndarray:
    """Return photos (n, D) in the item space from the tower's embeddings (n, D_image)."""
    n_photos = len(photos)
    embeddings = {
        name: photos if name == IMAGE else np.zeros((n_photos, size), dtype=np.float32)
        for name, size in variant.fusion.dims.items()
    }
    present = {name: np.full(n_photos, name == IMAGE) for name in embeddings}
    embedder = ItemEmbedder(None, None, variant.fusion, device=device)
    return embedder.fuse(Modalities(embeddings, present))
