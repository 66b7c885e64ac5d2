"""A saved tower is loaded unchanged, or its folder is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vision import checkpoint
from vision.errors import CheckpointError
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower

PICTURES = [
    Image.fromarray(pixels)
    for pixels in np.random.default_rng(0).integers(0, 256, (4, 30, 20, 3), dtype=np.uint8)
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[VisionTower, Path]:
    torch.manual_seed(0)
    classes = {"fine.level": ["a", "ä", "c"], "coarse": ["x", "y"]}
    tower = VisionTower(
        build_backbone("resnet10t", size=32, fit="crop"), dim=8, classes=classes, dropout=0.2
    )
    tower.train()(torch.randn(8, 3, 32, 32))
    folder = tmp_path_factory.mktemp("tower") / "vision"
    checkpoint.save(tower.eval(), folder)
    return tower, folder


def copy(folder: Path, to: Path) -> Path:
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_a_loaded_tower_has_identical_outputs(saved: tuple[VisionTower, Path]) -> None:
    tower, folder = saved
    loaded = checkpoint.load(folder)
    np.testing.assert_array_equal(loaded.embed(PICTURES), tower.embed(PICTURES))
    np.testing.assert_array_equal(
        loaded.predict_proba(PICTURES)["fine.level"], tower.predict_proba(PICTURES)["fine.level"]
    )
    assert loaded.classes == tower.classes
    assert loaded.preprocess == tower.preprocess
    assert (loaded.dim, loaded.dropout.p, loaded.training) == (8, 0.2, False)


def test_saving_again_writes_the_same_bytes(
    saved: tuple[VisionTower, Path], tmp_path: Path
) -> None:
    _, folder = saved
    checkpoint.save(checkpoint.load(folder), tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    for file in folder.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


def test_a_missing_folder_or_file_is_named(saved: tuple[VisionTower, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not hold a vision tower"):
        checkpoint.load(tmp_path / "absent")
    (copy(saved[1], tmp_path) / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"does not hold a vision tower.*model\.safetensors"):
        checkpoint.load(tmp_path)


def test_truncated_weights_are_refused(saved: tuple[VisionTower, Path], tmp_path: Path) -> None:
    file = copy(saved[1], tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format_version", 99, "format_version must be 1, got 99"),
        ("dim", 9, "is damaged"),
        ("dim", "many", "does not hold a vision tower"),
        ("surprise", 1, "does not hold a vision tower"),
        ("backbone", {"name": "resnet19", "size": 32}, "is damaged"),
    ],
)
def test_a_wrong_configuration_is_refused(
    saved: tuple[VisionTower, Path], tmp_path: Path, field: str, value: object, message: str
) -> None:
    file = copy(saved[1], tmp_path) / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**config, field: value}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("text", ["", "[1]", "{"])
def test_a_configuration_that_is_not_a_json_object_is_refused(
    saved: tuple[VisionTower, Path], tmp_path: Path, text: str
) -> None:
    (copy(saved[1], tmp_path) / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path)
