"""Files embedded in bulk: what a card may decode, what it may not, and that all keep their place.

The processor plays the card where there is none: torchvision has the same decoder for both.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import vision.deploy.bulk
from vision.batches import open_picture
from vision.deploy.bulk import (
    Card,
    Picture,
    _embed_pixels,
    _embed_with,
    embed_files,
    read_plain_jpeg,
)
from vision.images import MAX_BYTES, ImageError
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower
from vision.transforms import build_reader

TURNED = 6


@pytest.fixture(scope="module")
def tower() -> VisionTower:
    torch.manual_seed(0)
    tower = VisionTower(build_backbone("test_resnet", size=32), dim=16, classes={"a": ["b", "c"]})
    # Statistics as after training, so that evaluation mode does not answer with constants.
    with torch.no_grad():
        for _ in range(20):
            tower(F.interpolate(torch.randn(32, 3, 5, 6), (32, 32), mode="bicubic"))
    return tower.eval()


def blobs(seed: int, width: int = 50, height: int = 40) -> Image.Image:
    """A picture of smooth colours, unlike those of other seeds."""
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def save(picture: Image.Image, path: Path, **options: Any) -> Path:
    picture.save(path, **({"quality": 95, "subsampling": 0} | options))
    return path


def turned(picture: Image.Image, path: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = TURNED
    return save(picture.transpose(Image.Transpose.ROTATE_90), path, exif=exif)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Nine files of two sizes; the card is to decode five."""
    folder = tmp_path_factory.mktemp("bulk")
    cards = [save(blobs(row), folder / f"{row}.jpg") for row in range(3)]
    cards += [save(blobs(row, 90, 120), folder / f"{row}.jpg") for row in (3, 4)]
    others = [
        save(blobs(5), folder / "5.png"),
        save(blobs(6).convert("L"), folder / "6.jpg"),
        save(blobs(7).convert("CMYK"), folder / "7.jpg"),
        turned(blobs(8), folder / "8.jpg"),
    ]
    files = [*cards, *others]
    return [files[row] for row in (0, 5, 3, 1, 6, 7, 4, 8, 2)]


def embed_on_a_card(
    tower: VisionTower, paths: list[Path], *, rows: int = 4
) -> tuple[np.ndarray[Any, np.dtype[np.float32]], Card]:
    card = Card(tower.preprocess, torch.device("cpu"), rows)
    return _embed_with(card, _embed_pixels, tower, paths, "32-true"), card


@pytest.mark.parametrize("rows", [1, 4, 9])
def test_a_card_gives_every_file_the_embedding_of_the_tower_in_its_place(
    tower: VisionTower, paths: list[Path], rows: int
) -> None:
    wanted = tower.embed(paths)
    got, card = embed_on_a_card(tower, paths, rows=rows)
    assert got.dtype == np.float32
    assert (got * wanted).sum(axis=1).min() > 0.999
    assert np.partition(wanted @ wanted.T, -2)[:, -2].max() < 0.99, "no two are mistaken"
    assert (card.unsuited, card.refused) == (4, 0)


def test_on_a_processor_it_is_the_tower_s_own_embedding(
    tower: VisionTower, paths: list[Path]
) -> None:
    got = embed_files(tower, paths, device="cpu", batch_size=4, precision="32-true")
    np.testing.assert_array_equal(got, tower.embed(paths, batch_size=4))


def test_no_file_has_no_embedding(tower: VisionTower) -> None:
    assert embed_files(tower, [], device="cpu").shape == (0, 16)
    assert embed_on_a_card(tower, [], rows=0)[0].shape == (0, 16)


def test_a_card_is_given_plain_jpegs_alone(tmp_path: Path, paths: list[Path]) -> None:
    names = [path.name for path in paths if read_plain_jpeg(path) is not None]
    assert names == ["0.jpg", "3.jpg", "1.jpg", "4.jpg", "2.jpg"]
    data, area = read_plain_jpeg(paths[2]) or pytest.fail("it is a plain JPEG")
    assert bytes(data.tolist()) == paths[2].read_bytes()
    assert area == 90 * 120

    whole = paths[0].read_bytes()
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
    unsuited = {
        "cut": whole[:-400],
        "empty": b"",
        "text": b"not a picture",
        "adobe": whole[:2] + adobe + whole[2:],
        "long": whole[:-2] + bytes(MAX_BYTES) + whole[-2:],
    }
    for name, content in unsuited.items():
        (tmp_path / name).write_bytes(content)
        assert read_plain_jpeg(tmp_path / name) is None, name
    assert read_plain_jpeg(tmp_path) is None
    assert read_plain_jpeg(tmp_path / "missing.jpg") is None


def test_pictures_of_too_many_pixels_are_left_to_the_safety_boundary(
    monkeypatch: pytest.MonkeyPatch, paths: list[Path]
) -> None:
    monkeypatch.setattr(vision.deploy.bulk, "MAX_PIXELS", 90 * 120 - 1)
    assert read_plain_jpeg(paths[2]) is None
    assert read_plain_jpeg(paths[0]) is not None


def test_a_picture_on_its_side_is_embedded_upright(tower: VisionTower, tmp_path: Path) -> None:
    files = [save(blobs(1), tmp_path / "a.jpg"), turned(blobs(1), tmp_path / "b.jpg")]
    upright, side = embed_on_a_card(tower, files)[0]
    assert upright @ side > 0.999


@pytest.mark.filterwarnings("ignore:.*superseded:DeprecationWarning")
def test_what_the_card_refuses_the_processor_decodes(tower: VisionTower, paths: list[Path]) -> None:
    card = Card(tower.preprocess, torch.device("cpu"), rows=3)
    pictures = [card.read(row, paths[row]) for row in (0, 2, 3)]
    whole = card.pixels(pictures)
    garbage = torch.zeros(100, dtype=torch.uint8)
    got = card.pixels([pictures[0], pictures[1]._replace(content=garbage), pictures[2]])
    assert (got.int() - whole.int()).abs().max() <= 3
    assert card.refused == 1
    assert card.reason


def test_the_processor_s_share_is_logged(
    tower: VisionTower, paths: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "vision.deploy.bulk"):
        embed_on_a_card(tower, paths)
        embed_on_a_card(tower, paths[2:4])
    assert caplog.messages == [
        "the processor decoded 4 of 9 pictures, and 0 more that the card refused"
    ]


def test_a_filter_that_the_card_lacks_is_the_processor_s(
    tower: VisionTower, paths: list[Path]
) -> None:
    preprocess = tower.preprocess.model_copy(update={"interpolation": "lanczos"})
    card = Card(preprocess, torch.device("cpu"), rows=2)
    read = card.read(0, paths[0])
    assert read.content.shape == (3, 32, 32)
    assert read.area == 0


@pytest.mark.filterwarnings("ignore:.*superseded:DeprecationWarning")
def test_a_card_cuts_out_the_centre_that_the_processor_does(
    tower: VisionTower, paths: list[Path]
) -> None:
    preprocess = tower.preprocess.model_copy(update={"fit": "crop"})
    jpegs = [path for path in paths if read_plain_jpeg(path) is not None]
    card, read = Card(preprocess, torch.device("cpu"), rows=len(jpegs)), build_reader(preprocess)
    got = card.pixels([card.read(row, path) for row, path in enumerate(jpegs)])
    wanted = torch.stack([read(open_picture(path, preprocess.size)) for path in jpegs])
    assert (got.int() - wanted.int()).abs().max() <= 3


def test_large_pictures_are_decoded_in_portions(
    tower: VisionTower, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = torch.zeros(0)
    areas = (10, 0, 10, 25, 5, 10, 1)
    pictures = [Picture(row, Path(), tensor, area) for row, area in enumerate(areas)]
    monkeypatch.setattr(vision.deploy.bulk, "PIXELS_AT_ONCE", 20)
    assert [*vision.deploy.bulk._portions(pictures)] == [[0, 2], [3], [4, 5, 6]]
    in_portions, _ = embed_on_a_card(tower, paths, rows=9)
    monkeypatch.undo()
    np.testing.assert_allclose(in_portions, embed_on_a_card(tower, paths, rows=9)[0], atol=1e-5)


def test_an_unreadable_file_is_named_by_its_position(
    tower: VisionTower, paths: list[Path], tmp_path: Path
) -> None:
    torn = tmp_path / "torn.jpg"
    torn.write_bytes(paths[0].read_bytes().replace(b"\xff\xdb", b"\xff\xe5"))  # no quantisation
    for bad in (torn, tmp_path / "missing.jpg"):
        with pytest.raises(ImageError, match=rf"image 6: .*{bad.name}") as caught:
            embed_on_a_card(tower, [*paths[:6], bad, *paths[7:]])
        assert caught.value.position == 6


def test_arguments_that_do_not_fit_are_named(tower: VisionTower, paths: list[Path]) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        embed_files(tower, paths, device="cpu", batch_size=0)
    with pytest.raises(ValueError, match="compile must be False on a processor, got True on cpu"):
        embed_files(tower, paths, device="cpu", compile=True)


def test_the_tower_is_left_in_the_mode_it_was_in(tower: VisionTower, paths: list[Path]) -> None:
    tower.train()
    before = embed_on_a_card(tower, paths)[0]
    assert tower.training
    np.testing.assert_allclose(before, embed_on_a_card(tower.eval(), paths)[0], atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
@pytest.mark.parametrize("compiled", [False, True])
def test_a_cuda_card_gives_every_file_its_embedding(
    tower: VisionTower, paths: list[Path], compiled: bool
) -> None:
    wanted = tower.embed(paths)
    try:
        for _ in range(3):
            got = embed_files(tower, paths * 5, device="cuda", batch_size=8, compile=compiled)
            assert (got * np.tile(wanted, (5, 1))).sum(axis=1).min() > 0.99
    finally:
        tower.cpu()
