"""Squares of several sizes are made from one reading of a file, each as it would be alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.counting import count_decodes
from vision.images import ImageError
from vision.metadata import strip_metadata
from vision.squares import read_square, read_squares, stored_preprocess
from vision.transforms import Preprocess

TOWER = Preprocess(size=32, fit="crop")


def noise(path: Path, width: int, height: int) -> Path:
    """Write a picture in which every pixel differs from its neighbours."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(pixels).save(path, exif=exif)
    return path


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("size", [(60, 90), (150, 140), (300, 800), (2_300, 1_800)])
def test_each_of_several_squares_equals_the_one_that_is_read_alone(
    name: str, size: tuple[int, int], tmp_path: Path
) -> None:
    path = noise(tmp_path / name, *size)
    wanted = [TOWER, stored_preprocess(TOWER, 32), stored_preprocess(TOWER, 100)]
    for preprocess, square in zip(wanted, read_squares(path, wanted), strict=True):
        alone = read_square(Path(name), preprocess, tmp_path)
        assert torch.equal(square.pixels, alone.pixels)
        assert square.aspect == alone.aspect == pytest.approx(size[1] / size[0], rel=0.02)
        assert square.pixels.shape == (3, preprocess.size, preprocess.size)


@pytest.mark.parametrize(
    ("name", "side", "decodes"),
    [
        ("a.jpg", 100, 1),  # at its full size for both
        ("a.jpg", 140, 2),  # at a half for sides of 64, in full for sides of 74
        ("a.jpg", 200, 1),  # at a half for both
        ("a.png", 140, 1),
    ],
)
def test_a_file_is_decoded_once_for_all_squares_that_need_the_same_scale(
    name: str, side: int, decodes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = noise(tmp_path / name, side, side)
    counts = count_decodes(monkeypatch)
    read_squares(path, [TOWER, stored_preprocess(TOWER, 32)])
    bare = strip_metadata(path.read_bytes(), "JPEG" if name.endswith("jpg") else "PNG").data
    assert counts == {bare: decodes}


def test_stored_pictures_are_larger_than_they_are_trained_at_and_whole() -> None:
    stored = stored_preprocess(TOWER.model_copy(update={"interpolation": "lanczos"}), 100)
    assert (stored.size, stored.fit, stored.interpolation) == (115, "stretch", "lanczos")


def test_a_file_that_is_not_an_image_or_outside_the_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(ImageError, match="cannot be decoded"):
        read_square(tmp_path / "text.jpg", TOWER)
    (tmp_path / "root").mkdir()
    with pytest.raises(ImageError, match="outside its root"):
        read_square(Path("../text.jpg"), TOWER, tmp_path / "root")
