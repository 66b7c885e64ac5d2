"""Unreadable pictures are left out and reported, and the others keep their order."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.planted import plain_picture
from vision.labelling.readable import READ_TOGETHER, Readable
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower
from vision.transforms import Preprocess


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write five pictures, each lighter than the last; one is damaged and one is missing."""
    for row in range(5):
        shade = 50 * row
        plain_picture((shade, shade, shade), width=30 + row).save(tmp_path / f"{row}.png")
    (tmp_path / "1.png").write_bytes(b"damaged")
    (tmp_path / "3.png").unlink()
    return tmp_path


NAMES = [Path(f"{row}.png") for row in range(5)]


def test_damaged_and_missing_pictures_are_left_out_and_logged(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = Readable(NAMES, folder, Preprocess(size=16))
    with caplog.at_level(logging.WARNING, "vision.labelling.readable"):
        shades = [np.asarray(picture)[0, 0, 0] for picture in pictures]
    assert shades == [0, 100, 200]
    assert pictures.rows == [0, 2, 4]
    assert [image for image, _ in pictures.rejected] == [NAMES[1], NAMES[3]]
    assert "cannot be decoded" in pictures.rejected[0].reason
    assert "1.png' is left out" in caplog.messages[0]


def test_iterating_twice_resets_rows_and_rejected(folder: Path) -> None:
    pictures = Readable(NAMES, folder, Preprocess(size=16))
    assert len(list(pictures)) == len(list(pictures)) == 3
    assert pictures.rows == [0, 2, 4]
    assert len(pictures.rejected) == 2


def test_a_picture_outside_the_root_is_rejected(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    pictures = Readable([Path("../0.png")], inner, Preprocess(size=16))
    assert list(pictures) == []
    assert "is outside its root" in pictures.rejected[0].reason


@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_embeddings_equal_those_of_the_readable_files(folder: Path, fit: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone("test_resnet", size=32, fit="crop" if fit == "crop" else "stretch")
    tower = VisionTower(backbone, dim=4, classes={}).eval()
    noise = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "0.png")
    readable = [folder / name for name in (NAMES[0], NAMES[2], NAMES[4])]
    got = tower.embed(Readable(NAMES, folder, tower.preprocess), batch_size=2)
    np.testing.assert_array_equal(got, tower.embed(readable, batch_size=2))


def test_more_pictures_than_are_read_together_keep_their_order(tmp_path: Path) -> None:
    names = [Path(f"{row}.png") for row in range(2 * READ_TOGETHER + 3)]
    for row, name in enumerate(names):
        Image.new("L", (8, 8), row).save(tmp_path / name)
    shades = [np.asarray(p)[0, 0, 0] for p in Readable(names, tmp_path, Preprocess(size=8))]
    assert shades == list(range(len(names)))
