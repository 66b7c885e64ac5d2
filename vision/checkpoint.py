"""A tower as a folder: weights in safetensors, the rest in JSON, and no code."""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vision.errors import CheckpointError
from vision.files import whole_files
from vision.networks.backbones import BackboneSpec, restore_backbone
from vision.tower import VisionTower
from vision.transforms import Preprocess

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
FORMAT_VERSION = 1


class TowerConfig(BaseModel):
    """The contents of config.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = Field(description="Version of this layout.")
    backbone: BackboneSpec = Field(description="Network to build.")
    preprocess: Preprocess = Field(description="Preparation of pictures for the network.")
    dim: int = Field(ge=1, description="Embedding size D.")
    dropout: float = Field(ge=0, lt=1, description="Dropout before the classifiers.")
    classes: dict[str, tuple[str, ...]] = Field(description="Class names of every target.")


def describe(tower: VisionTower) -> TowerConfig:
    """Return the contents of a tower's config.json."""
    return TowerConfig(
        format_version=FORMAT_VERSION,
        backbone=tower.spec,
        preprocess=tower.preprocess,
        dim=tower.dim,
        dropout=tower.dropout.p,
        classes=tower.classes,
    )


def save(tower: VisionTower, folder: str | Path) -> None:
    """Write the tower's weights and configuration into a folder, which is created if missing.

    Raises:
        FileAccessError: If a file cannot be written.
    """
    weights = {name: value.cpu().contiguous() for name, value in tower.state_dict().items()}
    config = describe(tower).model_dump_json(indent=2)
    with whole_files(Path(folder), last=CONFIG_FILE) as scratch:
        save_file(weights, scratch / WEIGHTS_FILE)
        (scratch / CONFIG_FILE).write_text(config + "\n", encoding="utf-8")


def load(folder: str | Path) -> VisionTower:
    """Return the tower saved in a folder, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: If the folder does not contain a complete tower of this format.
    """
    folder = Path(folder)
    try:
        raw = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        version = raw.get("format_version")
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"{folder}: format_version must be {FORMAT_VERSION}, got {version!r}; "
                "this tower was written by another release"
            )
        config = TowerConfig.model_validate(raw)
        backbone = restore_backbone(config.backbone, config.preprocess)
        tower = VisionTower(
            backbone, dim=config.dim, classes=config.classes, dropout=config.dropout
        )
        tower.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except (OSError, AttributeError, ValidationError) as error:
        raise CheckpointError(f"{folder} does not hold a vision tower: {error}") from error
    except (ValueError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"the vision tower in {folder} is damaged: {error}") from error
    return tower.eval()
