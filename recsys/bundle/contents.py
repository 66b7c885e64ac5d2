"""What a bundle is made of, and how it is written."""

import json
import logging
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors
from torch import nn

import text.checkpoint
import vision.checkpoint
from recsys.bundle.finding import find_bundle
from recsys.bundle.manifest import file_hashes
from recsys.bundle.sealing import seal
from recsys.catalogue.served_tower import ServedTower
from recsys.config import TrainConfig, write_rules
from recsys.data.arrays import Bools
from recsys.data.interactions import Moment
from recsys.data.timestamps import from_us
from recsys.errors import BundleError
from recsys.identification.common_space import CommonSpace
from recsys.identification.heads import HeadsPart, save_heads
from recsys.identification.stored import IdentificationPart, describe, write_words
from recsys.models.fusion import ItemFusion
from recsys.ranking.features import FEATURES
from recsys.ranking.scoring import UserRanker
from recsys.ranking.statistics import Statistics
from recsys.ranking.stored import (
    ENCODER_FILE,
    NETWORK_FILE,
    TREES_FILE,
    describe_rankers,
    save_statistics,
    save_user_ranker,
)
from recsys.rules import NO_RULES, Rules
from text.encoder import TextEncoder
from text.networks.start import Start
from vision.tower import VisionTower

logger = logging.getLogger(__name__)

DESCRIPTION = "bundle.json"
SPLIT = "split.npy"  # moment of each user, where they differ
HELD_OUT_USERS = "held_out_users.npy"  # from whom nothing was learned before the split
STATISTICS = "statistics.safetensors"
WORDS = "words.parquet"  # read on the shop's pictures
HELD_OUT = "held_out"  # folder of what offline evaluation scores
EVENTS = "events.parquet"
SERVED_TOWER = "served_tower"  # folder of the vision tower's graphs
HEADS = "heads.safetensors"
VISION, GALLERY = "vision", "gallery.safetensors"
RANKING_FILES = (
    *(EVENTS, SPLIT, HELD_OUT_USERS, STATISTICS, HELD_OUT),
    *(ENCODER_FILE, TREES_FILE, NETWORK_FILE),
)


@dataclass(frozen=True)
class RankingPart:
    """The part of a bundle that ranks items for a user.

    Args:
        events: All events of the shop, table of ``EventSchema``.
        ranker: What answers; it learned from all events.
        held_out: What offline evaluation scores: the same, but that it learned from the events
            before the split only. None if that is true of ``ranker``.
        statistics: Item statistics as of the end of the events.
        target_kinds: Event kinds that ranking aims at.
        split_us: Moment at which the test events begin, or that of each user, microseconds UTC.
        held_out_users: Users from whom ``held_out`` learned nothing at all, bool (U,) in the order
            of their ids; None if it learned from the earlier events of all.
        choice: Why these rankers were chosen, as JSON values.
        offers: Number of items that sources of candidates offer, by the source's name; others have
            the default of ``OffersConfig``.
        settings: Result of ``ranking_settings`` of the configuration that it was trained by.
    """

    events: pl.DataFrame
    ranker: UserRanker
    statistics: Statistics
    target_kinds: tuple[str, ...]
    split_us: Moment
    held_out: UserRanker | None = None
    held_out_users: Bools | None = None
    choice: Mapping[str, Any] = field(default_factory=dict)
    offers: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Contents:
    """Everything that a bundle is made of; a part that was not trained is None.

    Args:
        items: Item table in row order.
        item_embeddings: Fused embeddings in row order (N, D).
        fusion: Network from tower embeddings to item embeddings.
        vision: Tower for pictures.
        text: Encoder for titles.
        ranking: Ranking for users.
        identification: Identification of products on photos.
        heads: Calibration of the vision tower's heads.
        common_space: Where pictures and words are compared.
        left_out: Parts that were not trained, each with the reason.
        items_as_of_us: Time at which the items were exported, microseconds UTC; None if unknown.
            Later live changes count, earlier ones do not.
        rules: Rules by which lists are made of ranked items.
        served: The tower for pictures as graphs, where torch does not run it.
        text_start: What decided how the text encoder began, where the configuration left it open.
    """

    items: pl.DataFrame
    item_embeddings: NDArray[np.float32]
    fusion: ItemFusion
    vision: VisionTower | None = None
    text: TextEncoder | None = None
    ranking: RankingPart | None = None
    identification: IdentificationPart | None = None
    heads: HeadsPart | None = None
    common_space: CommonSpace | None = None
    left_out: tuple[str, ...] = ()
    items_as_of_us: int | None = None
    rules: Rules = NO_RULES
    served: ServedTower | None = None
    text_start: Start | None = None


def ranking_settings(config: TrainConfig) -> dict[str, Any]:
    """Return the settings by which users and rankers can be trained again, as JSON values."""
    return config.model_dump(mode="json", include={"seed", "split", "users", "ranker"})


def write_bundle(contents: Contents, root: Path) -> Path:
    """Write and seal a bundle under ``root`` and return its folder, named by its version.

    It becomes the latest, even if its items are older than those of the latest before it; then a
    warning is logged, for that is what two trainings at the same time end in.
    """
    before_us, now_us = _latest_as_of_us(root), contents.items_as_of_us
    bundle = seal(root, lambda folder: _write(contents, folder))
    if before_us is not None and now_us is not None and now_us < before_us:
        logger.warning(
            "the latest bundle is now %s, whose items are as of %s; those of the latest before it "
            "are as of %s",
            bundle,
            from_us(now_us),
            from_us(before_us),
        )
    return bundle


def replace_ranking(bundle: Path, ranking: RankingPart, root: Path) -> Path:
    """Seal a bundle under ``root`` that has another ranking part, and return its folder.

    All other files are copied byte for byte. The latest bundle of ``root`` stays.

    Args:
        bundle: Folder of a verified bundle with a ranking part.
        ranking: The other ranking part.
        root: Folder of the bundles.
    """

    def fill(folder: Path) -> dict[str, Any]:
        _save_ranking(ranking, folder)
        return _describe_ranking(ranking)

    return _replace(bundle, root, RANKING_FILES, fill, latest=False)


def replace_vision(
    bundle: Path, tower: VisionTower, root: Path, *, grown: Mapping[str, int], note: Any
) -> Path:
    """Seal a bundle under ``root`` whose tower knows more classes, and return its folder.

    All other files are copied byte for byte. The new bundle becomes the latest of ``root``.

    Args:
        bundle: Folder of a verified bundle with a vision tower.
        tower: The same tower with more classes, the last of their targets.
        root: Folder of the bundles.
        grown: Number of new classes by target.
        note: What ``bundle.json`` says of them, a JSON value that is added to a list.
    """
    described = json.loads((bundle / DESCRIPTION).read_text("utf-8"))
    head: str = (described.get("identification") or {}).get("head") or ""

    def fill(folder: Path) -> dict[str, Any]:
        vision.checkpoint.save(tower, folder / VISION)
        if head in grown:  # the new classes are no products
            gallery = load_tensors(bundle / GALLERY)
            rows = gallery["head_rows"]
            gallery["head_rows"] = torch.cat([rows, rows.new_full((grown[head],), -1)])
            save_tensors(gallery, folder / GALLERY)
        return {"added_categories": [*(described.get("added_categories") or []), note]}

    replaced = (VISION, GALLERY) if head in grown else (VISION,)
    return _replace(bundle, root, replaced, fill, latest=True)


def _replace(
    bundle: Path,
    root: Path,
    replaced: Collection[str],
    fill: Callable[[Path], Mapping[str, Any]],
    *,
    latest: bool,
) -> Path:
    """Seal a copy of a bundle in which some files are others, and return its folder.

    Args:
        bundle: Folder of a verified bundle.
        root: Folder of the bundles.
        replaced: Files and folders at the top of the bundle that are not copied.
        fill: Function that writes the other ones, and returns what ``bundle.json`` says anew.
        latest: Whether it becomes the latest bundle of ``root``.
    """

    def write(folder: Path) -> None:
        for name in sorted({Path(one).parts[0] for one in file_hashes(bundle)}):
            if name in replaced:
                continue
            if (bundle / name).is_dir():
                shutil.copytree(bundle / name, folder / name)
            else:
                shutil.copyfile(bundle / name, folder / name)
        described = json.loads((bundle / DESCRIPTION).read_text("utf-8"))
        _write_description({**described, **fill(folder)}, folder)

    return seal(root, write, latest=latest)


def _latest_as_of_us(root: Path) -> int | None:
    """Return the time of the items in the latest bundle; None without one that can be read."""
    try:
        description = json.loads((find_bundle(root) / DESCRIPTION).read_text("utf-8"))
        time_us: int | None = description.get("items_as_of_us")
    except (BundleError, OSError, ValueError):
        return None  # the first bundle here, or the one before it is damaged, as opening it says
    return time_us


def _write(contents: Contents, folder: Path) -> None:
    contents.items.write_parquet(folder / "items.parquet")
    np.save(folder / "item_embeddings.npy", contents.item_embeddings)
    _save_module(contents.fusion, folder / "fusion.safetensors")
    if contents.vision is not None:
        vision.checkpoint.save(contents.vision, folder / VISION)
    if contents.served is not None:
        shutil.copytree(contents.served.folder, folder / SERVED_TOWER)
    if contents.text is not None:
        text.checkpoint.save(contents.text, folder / "text")
    if contents.ranking is not None:
        _save_ranking(contents.ranking, folder)
    if contents.identification is not None:
        gallery = contents.identification.gallery
        tensors = {name: value.contiguous() for name, value in vars(gallery).items()}
        save_tensors(tensors, folder / GALLERY)
        if contents.identification.words is not None:
            write_words(contents.identification.words, folder / WORDS)
    if contents.heads is not None:
        save_heads(contents.heads, folder / HEADS)
    _write_description(_describe(contents), folder)


def _write_description(description: Mapping[str, Any], folder: Path) -> None:
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1))


def _describe(contents: Contents) -> dict[str, Any]:
    """Return the content of ``bundle.json``: how the networks are built, and their targets."""
    identification = contents.identification
    return {
        "fusion": contents.fusion.spec._asdict(),
        "modalities": dict(contents.fusion.dims),
        **_describe_ranking(contents.ranking),
        "weights": _describe_weights(contents),
        "text_start": contents.text_start._asdict() if contents.text_start else None,
        "identification": describe(identification) if identification else None,
        "reading": contents.heads.reading._asdict() if contents.heads else {},
        "common_space": asdict(contents.common_space) if contents.common_space else None,
        "left_out": list(contents.left_out),
        "items_as_of_us": contents.items_as_of_us,
        "rules": write_rules(contents.rules),
        "serving": contents.served.describe() if contents.served else None,
    }


def _describe_weights(contents: Contents) -> dict[str, Any]:
    """Return which weights each tower began with, None for random ones."""
    began: dict[str, Any] = {}
    if contents.vision is not None:
        began["vision"] = contents.vision.spec.weights
    if contents.text is not None:
        began["text"] = contents.text.origin
    return {name: origin and origin.model_dump() for name, origin in began.items()}


def _describe_ranking(ranking: RankingPart | None) -> dict[str, Any]:
    """Return what ``bundle.json`` says of the ranking part."""
    return {
        "users": ranking.ranker.encoder.spec._asdict() if ranking else None,
        "rankers": describe_rankers(ranking.ranker) if ranking else None,
        "held_out": describe_rankers(ranking.held_out) if ranking and ranking.held_out else None,
        "choice": dict(ranking.choice) if ranking else None,
        "offers": dict(ranking.offers) if ranking else None,
        "tempo": ranking.statistics.tempo._asdict() if ranking else None,
        "settings": dict(ranking.settings) if ranking else None,
        "features": list(FEATURES),
        "target_kinds": list(ranking.target_kinds) if ranking else [],
        "split_us": _split_us(ranking) if ranking else None,
        "as_of_us": ranking.statistics.as_of_us if ranking else None,
    }


def _split_us(ranking: RankingPart) -> int | None:
    """Return the moment of the split; None where each user has one, which a file holds."""
    return ranking.split_us if isinstance(ranking.split_us, int) else None


def _save_ranking(ranking: RankingPart, folder: Path) -> None:
    ranking.events.write_parquet(folder / EVENTS)
    if not isinstance(ranking.split_us, int):
        np.save(folder / SPLIT, ranking.split_us)
    if ranking.held_out_users is not None:
        np.save(folder / HELD_OUT_USERS, ranking.held_out_users)
    save_statistics(ranking.statistics, folder / STATISTICS)
    save_user_ranker(ranking.ranker, folder)
    if ranking.held_out is not None:
        (folder / HELD_OUT).mkdir()
        save_user_ranker(ranking.held_out, folder / HELD_OUT)


def _save_module(module: nn.Module, path: Path) -> None:
    save_tensors({name: value.contiguous() for name, value in module.state_dict().items()}, path)
