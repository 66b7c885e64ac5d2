"""A bundle as it is read: verified at once, each part opened when it is first used."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors.torch import load_file as load_tensors
from torch import nn

import text.checkpoint
import vision.checkpoint
from recsys.bundle.contents import (
    EVENTS,
    HEADS,
    HELD_OUT,
    HELD_OUT_USERS,
    SERVED_TOWER,
    SPLIT,
    STATISTICS,
    WORDS,
)
from recsys.bundle.finding import LATEST, find_bundle
from recsys.bundle.manifest import verify
from recsys.catalogue.embedder import ItemEmbedder, check_device
from recsys.catalogue.served_tower import ServedTower
from recsys.config import read_rules
from recsys.data.arrays import Bools
from recsys.data.interactions import Interactions, Moment, build_interactions
from recsys.errors import BundleError, MissingPartError
from recsys.identification.common_space import CommonSpace
from recsys.identification.heads import HeadsPart, Reading, load_heads
from recsys.identification.stored import (
    IdentificationPart,
    read_words,
    restore,
    restore_prototypes,
)
from recsys.models.fusion import FusionSpec, ItemFusion
from recsys.models.user_encoder import UserEncoder, UserEncoderSpec
from recsys.ranking.features import FEATURES
from recsys.ranking.scoring import UserRanker
from recsys.ranking.statistics import Statistics, build_statistics
from recsys.ranking.stored import ENCODER_FILE, load_statistics, load_user_ranker
from text.encoder import TextEncoder
from text.networks.start import Start
from vision.networks.packages import Origin
from vision.tower import VisionTower
from vision.words import Lines

M = TypeVar("M", bound=nn.Module)


class Bundle:
    """A verified bundle; parts are opened when they are first used.

    Args:
        path: The bundle's folder, or a folder of bundles, of which the latest is taken.

    Raises:
        BundleError: If the folder does not hold a bundle or cannot be read, or any byte of it
            differs from its manifest.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            self.path = find_bundle(Path(path))
            self.version = verify(self.path, copied_as=LATEST)
        except OSError as error:
            place = error.filename or path
            raise BundleError(
                f"bundle {path} cannot be read: {place}: {error.strerror or error}; give access "
                "to it, or copy it again"
            ) from error
        self._description: dict[str, Any] = json.loads((self.path / "bundle.json").read_text())
        self.target_kinds: tuple[str, ...] = tuple(self._description["target_kinds"])
        self.split_us: Moment | None = self._description["split_us"]
        if (self.path / SPLIT).exists():
            self.split_us = np.load(self.path / SPLIT, allow_pickle=False)
        self.held_out_users: Bools | None = None  # None where training saw something of all users
        if (self.path / HELD_OUT_USERS).exists():
            self.held_out_users = np.load(self.path / HELD_OUT_USERS, allow_pickle=False)
        self.as_of_us: int | None = self._description["as_of_us"]
        self.left_out: tuple[str, ...] = tuple(self._description["left_out"])
        # Bundles of earlier releases lack the rest.
        self.choice: Mapping[str, Any] = self._description.get("choice") or {}
        self.items_as_of_us: int | None = self._description.get("items_as_of_us")
        self.offers: Mapping[str, int] = self._description.get("offers") or {}
        self.settings: Mapping[str, Any] = self._description.get("settings") or {}
        # Where the weights that each tower began with are from; None for random ones.
        self.weights: Mapping[str, Origin | None] = {
            tower: one and Origin.model_validate(one)
            for tower, one in (self._description.get("weights") or {}).items()
        }
        start = self._description.get("text_start")
        self.text_start: Start | None = start and Start(**start)
        serving = self._description.get("serving")
        self.served_tower = serving and ServedTower(self.path / SERVED_TOWER, **serving)
        # How the logits of the vision tower's heads become names.
        self.reading = Reading(**(self._description.get("reading") or {}))
        self.rules = read_rules(self._description.get("rules") or {})
        self._known: tuple[Moment, Interactions, Statistics] | None = None

    @cached_property
    def parts(self) -> frozenset[str]:
        """Which of "vision", "text", "ranking" and "identification" the bundle has."""
        files = {
            "vision": "vision",
            "text": "text",
            "ranking": ENCODER_FILE,
            "identification": "gallery.safetensors",
        }
        return frozenset(part for part, name in files.items() if (self.path / name).exists())

    def require(self, part: str) -> None:
        """Raise if a part was not trained.

        Raises:
            MissingPartError: Says why the part was left out.
        """
        if part not in self.parts:
            own = [one for one in self.left_out if one.startswith(f"{part}: ")]
            why = "; ".join(own or self.left_out) or "no reason recorded"
            raise MissingPartError(
                f"bundle {self.version} has no {part!r} part, only {sorted(self.parts)} ({why})"
            )

    @cached_property
    def items(self) -> pl.DataFrame:
        """The item table in row order."""
        return pl.read_parquet(self.path / "items.parquet", glob=False)

    @cached_property
    def item_embeddings(self) -> NDArray[np.float32]:
        """Fused item embeddings in row order (N, D), a read-only memory map."""
        embeddings: NDArray[np.float32] = np.load(
            self.path / "item_embeddings.npy", mmap_mode="r", allow_pickle=False
        )
        return embeddings

    @cached_property
    def vision(self) -> VisionTower:
        """Tower for pictures."""
        self.require("vision")
        return vision.checkpoint.load(self.path / "vision").eval()

    @cached_property
    def vision_on_cpu(self) -> VisionTower:
        """Tower for pictures as a CPU runs it: by its graph, if the bundle has one."""
        return self.vision if self.served_tower is None else self.served_tower.of(self.vision)

    @cached_property
    def text(self) -> TextEncoder:
        """Encoder for titles."""
        self.require("text")
        return text.checkpoint.load(self.path / "text").eval()

    @cached_property
    def fusion(self) -> ItemFusion:
        """From modality embeddings to item embeddings."""
        spec = _spec(FusionSpec, self._description["fusion"])
        module = ItemFusion(self._description["modalities"], **spec)
        return _load_module(module, self.path / "fusion.safetensors")

    def embedder(self, *, device: str = "cpu") -> ItemEmbedder:
        """Return the towers and the fusion as one, on the device."""
        on_cpu = check_device(device) == "cpu"
        vision = (self.vision_on_cpu if on_cpu else self.vision) if "vision" in self.parts else None
        return ItemEmbedder(
            vision,
            self.text if "text" in self.parts else None,
            self.fusion,
            device=device,
        )

    @property
    def events(self) -> pl.DataFrame:
        """Table of all events of the bundle."""
        self.require("ranking")
        return pl.read_parquet(self.path / EVENTS, glob=False)

    @cached_property
    def kind_names(self) -> Sequence[str]:
        """Kinds of the events; the position is the kind code. The events are not kept."""
        self.require("ranking")
        kinds = pl.scan_parquet(self.path / EVENTS, glob=False).select(pl.col("kind").unique())
        names: list[str] = kinds.collect(engine="streaming").to_series().sort().to_list()
        return names

    @cached_property
    def interactions(self) -> Interactions:
        """All events of the bundle, as arrays."""
        return build_interactions(self.events, self.items["item_id"].to_list())

    @cached_property
    def statistics(self) -> Statistics:
        """Item statistics as of the end of the events.

        Raises:
            BundleError: If this release computes other features than the ranker was trained on.
        """
        self._require_features()
        return load_statistics(self.path / STATISTICS)

    def known_at(self, as_of: Moment | None) -> tuple[Interactions, Statistics, UserRanker]:
        """Return the events before a moment, their statistics, and what ranks by them.

        Those of the last moment are kept, for a report asks for them several times.

        Args:
            as_of: Moment from which on events are forgotten; None forgets nothing. With a moment,
                what ranks is what learned from the events before the split only, and users who were
                held out from training are in no statistic.
        """
        if as_of is None:
            return self.interactions, self.statistics, self.user_ranker
        if self._known is None or not np.array_equal(self._known[0], as_of):
            past = self.interactions.before(as_of)
            found = build_statistics(
                past.without_users(self.held_out_users),
                as_of,
                target_kinds=self.target_kinds,
                related=self.statistics.related,
                window_days=self.statistics.tempo.window_days,
            )
            self._known = (as_of, past, found)
        return *self._known[1:], self.held_out

    @cached_property
    def user_ranker(self) -> UserRanker:
        """User encoder and ranker, which learned from all events.

        Raises:
            BundleError: If this release computes other features than the ranker was trained on.
        """
        return self._load_user_ranker("rankers", self.path)

    @cached_property
    def held_out(self) -> UserRanker:
        """User encoder and ranker that learned from the events before the split only.

        Raises:
            BundleError: As for ``user_ranker``.
        """
        if self._description.get("held_out") is None:
            return self.user_ranker
        return self._load_user_ranker("held_out", self.path / HELD_OUT)

    def _load_user_ranker(self, described: str, folder: Path) -> UserRanker:
        self._require_features()
        encoder = UserEncoder(
            self.item_embeddings.shape[1],
            n_kinds=len(self.kind_names),
            spec=UserEncoderSpec(**_spec(UserEncoderSpec, self._description["users"])),
        )
        return load_user_ranker(encoder, self._description[described], folder)

    def _require_features(self) -> None:
        """Raise if the ranking part is of a release with other features and statistics."""
        self.require("ranking")
        if self._description["features"] != list(FEATURES):
            raise BundleError(
                f"bundle {self.version} ranks by the features {self._description['features']}, "
                f"this release computes {list(FEATURES)}; train again"
            )

    @cached_property
    def heads(self) -> HeadsPart:
        """What calibrates the heads of the vision tower, and lets them grow.

        Raises:
            MissingPartError: If training had no photos of val, or the bundle is of an earlier
                release.
        """
        self.require("vision")
        if not (self.path / HEADS).exists():
            raise MissingPartError(
                f"bundle {self.version} keeps no photos to set the scale of its classes by: it was "
                "trained without photos of val, or by an earlier release; train again with some "
                "photos whose split is val"
            )
        return load_heads(self.path / HEADS, self.reading)

    @property
    def common_space(self) -> CommonSpace:
        """Where pictures and words are compared.

        Raises:
            MissingPartError: If they cannot be, or the bundle is of an earlier release.
        """
        for part in ("vision", "text"):
            self.require(part)
        space = self._description.get("common_space")
        if space is None:
            raise MissingPartError(
                f"pictures and words of bundle {self.version} cannot be compared: by the names of "
                "its categories, photos of val were recognised no better than by chance, or there "
                "were none, or it is of an earlier release; train with epochs in [alignment], or "
                "name one CLIP or SigLIP checkpoint in [vision] and [text]"
            )
        return CommonSpace(**space)

    @cached_property
    def picture_lines(self) -> Mapping[str, Lines]:
        """Lines that training read on the shop's pictures, by item id; empty if it read none."""
        return read_words(self.path / WORDS) or {}

    @cached_property
    def identification(self) -> IdentificationPart:
        """What tells the product on a photo."""
        self.require("identification")
        tensors = load_tensors(self.path / "gallery.safetensors")
        if "prototypes" in tensors:
            return restore_prototypes(tensors, self._description["calibration"])
        words = read_words(self.path / WORDS)
        return restore(tensors, self._description["identification"], words)


def _load_module(module: M, path: Path) -> M:
    module.load_state_dict(load_tensors(path))
    return module.eval()


def _spec(kind: type[FusionSpec | UserEncoderSpec], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a spec, by name.

    Bundles of earlier releases hold the whole configuration of the training; the rest of it is
    ignored.
    """
    return {name: stored[name] for name in kind._fields}
