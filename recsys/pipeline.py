"""From a configuration to a sealed bundle: every stage in order, skipped where nothing changed."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

import text.checkpoint
import vision.checkpoint
from recsys.bundle import Contents, write_bundle
from recsys.catalogue.embedder import is_readable
from recsys.catalogue.store import Catalogue
from recsys.config import TrainConfig
from recsys.data import dataset as tables
from recsys.data.dataset import Dataset
from recsys.data.pictures import Progress
from recsys.data.quarantine import Quarantine
from recsys.errors import DataError
from recsys.identification.stored import IdentificationPart
from recsys.ranking.statistics import build_statistics
from recsys.training.alignment import Towers, align_towers, load_fusion, load_towers
from recsys.training.cuts import choose_cuts, choose_targets, dataset_interactions
from recsys.training.identification import (
    LabelledPhotos,
    calibrate,
    fuse_without_halves,
    gallery_of,
    labelled_photos,
    load_photos,
    product_classes,
    run_photos,
)
from recsys.training.labels import item_labels
from recsys.training.pairs import item_pairs
from recsys.training.stack import Material, Variant, fuse_items, train_variant
from recsys.training.stages import Stage, Workspace, hash_files
from recsys.training.towers import (
    TOWER,
    captioned_pictures,
    embed_dataset,
    label_pictures,
    load_embeddings,
    picture_paths,
    text_samples,
    train_text,
    train_vision,
)
from text.encoder import TextEncoder
from vision.tower import VisionTower

STAGES = ".stages"  # beside the bundles; deleting it costs time, never results
# What towers see of an item: a new event or another price trains none of them again.
PICTURED = ("item_id", "image", "category", "attributes")
WRITTEN = (*PICTURED, "title", "description")


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
    identification = _identification(
        material, variant, towers[0], config, workspace, device=device, progress=progress
    )
    contents = replace(contents, vision=towers[0], text=towers[1], identification=identification)
    bundle = write_bundle(contents, out)
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
        reasons.append("vision: no item has a readable picture")
    if not _has_titles(dataset):
        reasons.append("text: no item has a title or description")
    if len(reasons) == 2:
        raise DataError(
            f"items must have titles or pictures, none of the {len(items)} items has either"
        )
    if dataset.events is None:
        reasons.append("ranking: no events table was given")
    if not _identifies(dataset):
        reasons.append("identification: no photos of the val split name their item")
    return tuple(reasons)


def _has_pictures(dataset: Dataset) -> bool:
    return dataset.items["image"].count() > 0


def _identifies(dataset: Dataset) -> bool:
    """Return whether there are pictures, and photos to calibrate on."""
    return _has_pictures(dataset) and bool((labelled_photos(dataset)["split"] == "val").any())


def _has_titles(dataset: Dataset) -> bool:
    return dataset.items["title"].count() + dataset.items["description"].count() > 0


def _prepare(
    dataset: Dataset, config: TrainConfig, workspace: Workspace, *, device: str, progress: bool
) -> tuple[Material, tuple[VisionTower | None, TextEncoder | None]]:
    """Return what variants are trained on, and the towers."""
    labels = item_labels(dataset.items)
    interactions = dataset_interactions(dataset)
    targets = choose_targets(interactions, config.data.target_kinds)
    cuts_us = choose_cuts(interactions, config.split)
    past = None if interactions is None else interactions.before(cuts_us[0])
    pairs = item_pairs(past, seed=config.seed)
    pictured, written, tables = (
        {"tables": part.fingerprint(), "seed": config.seed}
        for part in (dataset.seen(PICTURED), dataset.seen(WRITTEN), dataset)
    )
    keys, tower, encoder, start = [], None, None, None
    if _has_pictures(dataset):
        stage = workspace.run(
            "vision",
            {
                **pictured,
                "config": config.vision.model_dump(),
                "weights": [
                    hash_files(config.vision.pretrained),
                    hash_files(config.vision.backbone.removeprefix("transformers/")),
                ],
            },
            lambda folder: train_vision(
                dataset, label_pictures(dataset), config, folder, progress=progress
            ),
        )
        keys.append(stage.key)
        tower = vision.checkpoint.load(stage.folder / TOWER)
    if _has_titles(dataset):
        stage = workspace.run(
            "text",
            {
                **written,
                "pairs": hashlib.sha256(pairs.tobytes()).hexdigest(),
                "config": config.text.model_dump(),
                "weights": hash_files(config.text.checkpoint),
            },
            lambda folder: train_text(
                text_samples(dataset.items, labels, pairs),
                config,
                folder,
                progress=progress,
            ),
        )
        keys.append(stage.key)
        encoder = text.checkpoint.load(stage.folder / TOWER)
    if tower is not None and encoder is not None and config.alignment.epochs:
        towers = Towers(tower, encoder)
        stage = workspace.run(
            "alignment",
            {
                **written,
                "towers": keys,
                "config": config.alignment.model_dump(),
                "fusion": config.fusion.model_dump(include={"kind", "dim", "hidden", "dropout"}),
            },
            lambda folder: align_towers(
                captioned_pictures(dataset, label_pictures(dataset)),
                towers,
                config,
                folder,
                device=device,
                progress=progress,
            ),
        )
        keys = [stage.key]
        tower, encoder = towers = load_towers(stage.folder)
        start = load_fusion(stage.folder, towers, config)
    stage = workspace.run(
        "embeddings",
        {**written, "towers": keys},
        lambda folder: embed_dataset(
            dataset, tower, encoder, folder, device=device, progress=progress
        ),
    )
    modalities, photos = load_embeddings(stage.folder)
    key = json.dumps([stage.key, tables, targets, cuts_us])
    material = Material(
        dataset, labels, modalities, photos, interactions, targets, cuts_us, start, key
    )
    return material, (tower, encoder)


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
        item_embeddings=variant.fused.embeddings,
        fusion=variant.fused.fusion,
        fusion_config=config.fusion,
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


def _identification(
    material: Material,
    variant: Variant,
    tower: VisionTower | None,
    config: TrainConfig,
    workspace: Workspace,
    *,
    device: str,
    progress: bool,
) -> IdentificationPart | None:
    """Return what tells the product on a photo, None without photos to calibrate it on."""
    dataset, views = material.dataset, config.identification.views
    if tower is None or not _identifies(dataset):
        return None
    labels = labelled_photos(dataset)
    head, head_rows = product_classes(tower.classes, dataset.items)
    stage = workspace.run(
        "photos",
        {"material": material.key, "views": views},
        lambda folder: run_photos(
            picture_paths(dataset, labels["image"]),
            tower,
            folder,
            head=head,
            views=views,
            device=device,
            progress=progress,
        ),
    )
    photos = LabelledPhotos.from_table(labels, dataset.items, load_photos(stage.folder), head_rows)
    held_out = fuse_without_halves(
        photos,
        material.modalities,
        lambda suffix, without: fuse_items(
            material,
            config,
            workspace,
            device=device,
            progress=progress,
            suffix=suffix,
            without=without,
        ),
    )
    fused = variant.fused
    gallery = gallery_of(photos, material.modalities, fused.fusion)
    categories = Catalogue(dataset.items, fused.embeddings).categories
    calibration = calibrate(photos, fused, gallery, held_out, categories, config.identification)
    return IdentificationPart(gallery, calibration, head, views)
