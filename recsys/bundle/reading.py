"""The bundle: one immutable, hashed directory with all that answering needs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors
from torch import nn

import text.checkpoint
import vision.checkpoint
from recsys.bundle.sealing import latest, sealed_folder, verify
from recsys.catalogue.embedder import ItemEmbedder
from recsys.config import FusionConfig, RankerConfig, UserConfig
from recsys.data.interactions import Interactions, build_interactions
from recsys.errors import BundleError, MissingPartError
from recsys.identification.stored import IdentificationPart, describe, restore, restore_prototypes
from recsys.models.fusion import ItemFusion, build_fusion
from recsys.models.ranker import Ranker, build_ranker
from recsys.models.user_encoder import UserEncoder, build_user_encoder
from recsys.ranking.features import FEATURES
from recsys.ranking.scoring import UserRanker
from recsys.ranking.statistics import Statistics
from text.encoder import TextEncoder
from vision.tower import VisionTower

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Contents:
    """All that a bundle is made of; a part that was not trained is None.

    Args:
        items: Item table in row order.
        item_embeddings: Fused embeddings in row order (N, D).
        events: Event table, all of it.
        vision: Tower for pictures.
        text: Encoder for titles.
        fusion: From modality embeddings to item embeddings.
        fusion_config: What ``fusion`` was built from.
        user_encoder: From history to user vector.
        user_config: What ``user_encoder`` was built from.
        ranker: From features to logit.
        ranker_config: What ``ranker`` was built from.
        statistics: Item statistics as of the end of the events.
        identification: Photo identification.
        target_kinds: Event kinds that ranking aims at.
        split_us: Where the test events begin, microseconds UTC; learning saw nothing later.
        left_out: What was not trained and why.
    """

    items: pl.DataFrame
    item_embeddings: NDArray[np.float32]
    fusion: ItemFusion
    fusion_config: FusionConfig
    events: pl.DataFrame | None = None
    vision: VisionTower | None = None
    text: TextEncoder | None = None
    user_encoder: UserEncoder | None = None
    user_config: UserConfig | None = None
    ranker: Ranker | None = None
    ranker_config: RankerConfig | None = None
    statistics: Statistics | None = None
    identification: IdentificationPart | None = None
    target_kinds: tuple[str, ...] = ()
    split_us: int | None = None
    left_out: tuple[str, ...] = ()


def write_bundle(contents: Contents, root: Path) -> Path:
    """Write and seal a bundle under ``root`` and return its folder, named by its version."""
    with sealed_folder(root) as folder:
        contents.items.write_parquet(folder / "items.parquet")
        np.save(folder / "item_embeddings.npy", contents.item_embeddings)
        _save_module(contents.fusion, folder / "fusion.safetensors")
        if contents.vision is not None:
            vision.checkpoint.save(contents.vision, folder / "vision")
        if contents.text is not None:
            text.checkpoint.save(contents.text, folder / "text")
        if contents.events is not None:
            contents.events.write_parquet(folder / "events.parquet")
        if contents.statistics is not None:
            _save_statistics(contents.statistics, folder / "statistics.safetensors")
        if contents.user_encoder is not None and contents.ranker is not None:
            _save_module(contents.user_encoder, folder / "user_encoder.safetensors")
            _save_module(contents.ranker, folder / "ranker.safetensors")
        if contents.identification is not None:
            gallery = contents.identification.gallery
            tensors = {name: value.contiguous() for name, value in vars(gallery).items()}
            save_tensors(tensors, folder / "gallery.safetensors")
        (folder / "bundle.json").write_text(json.dumps(_describe(contents), indent=1))
    return latest(root)


def _describe(contents: Contents) -> dict[str, Any]:
    users = contents.user_config, contents.ranker_config
    identification = contents.identification
    return {
        "fusion": contents.fusion_config.model_dump(mode="json"),
        "modalities": dict(contents.fusion.dims),
        "users": users[0].model_dump(mode="json") if users[0] else None,
        "ranker": users[1].model_dump(mode="json") if users[1] else None,
        "features": list(FEATURES),
        "identification": describe(identification) if identification else None,
        "target_kinds": list(contents.target_kinds),
        "split_us": contents.split_us,
        "as_of_us": contents.statistics.as_of_us if contents.statistics else None,
        "left_out": list(contents.left_out),
    }


class Bundle:
    """A verified bundle; parts are opened when they are first used.

    Args:
        path: The bundle's folder, or a folder of bundles, of which the latest is taken.

    Raises:
        BundleError: If there is no bundle, or any byte of it differs from its manifest.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        if not path.is_dir():
            raise BundleError(f"bundle must be a folder, got {path}; train one with `recsys train`")
        self.path = path.resolve() if (path / "manifest.json").exists() else latest(path)
        self.version = verify(self.path)
        self._description: dict[str, Any] = json.loads((self.path / "bundle.json").read_text())
        self.target_kinds: tuple[str, ...] = tuple(self._description["target_kinds"])
        self.split_us: int | None = self._description["split_us"]
        self.as_of_us: int | None = self._description["as_of_us"]
        self.left_out: tuple[str, ...] = tuple(self._description["left_out"])

    @cached_property
    def parts(self) -> frozenset[str]:
        """Which of "vision", "text", "ranking" and "identification" the bundle has."""
        files = {
            "vision": "vision",
            "text": "text",
            "ranking": "ranker.safetensors",
            "identification": "gallery.safetensors",
        }
        return frozenset(part for part, name in files.items() if (self.path / name).exists())

    def require(self, part: str) -> None:
        """Raise if a part was not trained.

        Raises:
            MissingPartError: Says why the part was left out.
        """
        if part not in self.parts:
            why = "; ".join(self.left_out) or "no reason recorded"
            raise MissingPartError(
                f"bundle {self.version} has no {part!r} part, only {sorted(self.parts)} ({why})"
            )

    @cached_property
    def items(self) -> pl.DataFrame:
        """The item table in row order."""
        return pl.read_parquet(self.path / "items.parquet")

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
    def text(self) -> TextEncoder:
        """Encoder for titles."""
        self.require("text")
        return text.checkpoint.load(self.path / "text").eval()

    @cached_property
    def fusion(self) -> ItemFusion:
        """From modality embeddings to item embeddings."""
        config = FusionConfig.model_validate(self._description["fusion"])
        module = build_fusion(config, self._description["modalities"])
        return _load_module(module, self.path / "fusion.safetensors")

    def embedder(self, *, device: str = "cpu") -> ItemEmbedder:
        """Return the towers and the fusion as one, on the device."""
        return ItemEmbedder(
            self.vision if "vision" in self.parts else None,
            self.text if "text" in self.parts else None,
            self.fusion,
            device=device,
        )

    @cached_property
    def interactions(self) -> Interactions:
        """All events of the bundle."""
        self.require("ranking")
        events = pl.read_parquet(self.path / "events.parquet")
        return build_interactions(events, self.items["item_id"].to_list())

    @cached_property
    def statistics(self) -> Statistics:
        """Item statistics as of the end of the events."""
        self.require("ranking")
        arrays = load_arrays(self.path / "statistics.safetensors")
        return Statistics(as_of_us=self._description["as_of_us"], **arrays)

    @cached_property
    def user_ranker(self) -> UserRanker:
        """User encoder and ranker.

        Raises:
            BundleError: If this release computes other features than the ranker was trained on.
        """
        self.require("ranking")
        if self._description["features"] != list(FEATURES):
            raise BundleError(
                f"bundle {self.version} ranks by the features {self._description['features']}, "
                f"this release computes {list(FEATURES)}; train again"
            )
        user_config = UserConfig.model_validate(self._description["users"])
        ranker_config = RankerConfig.model_validate(self._description["ranker"])
        encoder = build_user_encoder(
            user_config,
            dim=self.item_embeddings.shape[1],
            n_kinds=len(self.interactions.kind_names),
        )
        return UserRanker(
            _load_module(encoder, self.path / "user_encoder.safetensors"),
            _load_module(
                build_ranker(ranker_config, len(FEATURES)), self.path / "ranker.safetensors"
            ),
        )

    @cached_property
    def identification(self) -> IdentificationPart:
        """What tells the product on a photo."""
        self.require("identification")
        tensors = load_tensors(self.path / "gallery.safetensors")
        if "prototypes" in tensors:
            return restore_prototypes(tensors, self._description["calibration"])
        return restore(tensors, self._description["identification"])


def _save_module(module: nn.Module, path: Path) -> None:
    save_tensors({name: value.contiguous() for name, value in module.state_dict().items()}, path)


def _load_module(module: M, path: Path) -> M:
    module.load_state_dict(load_tensors(path))
    return module.eval()


def _save_statistics(statistics: Statistics, path: Path) -> None:
    arrays: Mapping[str, Any] = {
        field.name: np.ascontiguousarray(getattr(statistics, field.name))
        for field in fields(statistics)
        if field.name != "as_of_us"
    }
    save_arrays(dict(arrays), path)
