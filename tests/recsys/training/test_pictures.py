"""The pictures of a run are decoded once, and their pixels are those of the files."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import recsys.training.pictures
from recsys.config import TrainConfig
from recsys.errors import FileAccessError
from recsys.training.pictures import KeptSquare, Pictures, kept_squares
from tests.counting import count_decodes
from tests.recsys.training.mug_shop import IMAGES
from vision.errors import ImageError
from vision.squares import read_square, stored_preprocess
from vision.transforms import Preprocess

TOWER = Preprocess(size=16, fit="crop")
STORED = stored_preprocess(TOWER, 20)
NAMES = [name for name in IMAGES if name]


@pytest.fixture
def pictures(tmp_path: Path) -> Iterator[Pictures]:
    """Pictures that keep the squares of ``TOWER``."""
    with Pictures(tmp_path / "stages", [KeptSquare(16, "crop")]) as made:
        yield made


def test_pixels_equal_those_of_the_file_whether_kept_or_not(pictures: Pictures, root: Path) -> None:
    for _ in range(2):
        for preprocess in (STORED, TOWER):
            for name in NAMES:
                got = pictures.read(Path(name), preprocess, root)
                wanted = read_square(root / name, preprocess)
                assert torch.equal(got.pixels, wanted.pixels)
                assert got.aspect == wanted.aspect


def test_a_kept_square_is_made_with_the_first_square_of_a_file(
    pictures: Pictures, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = count_decodes(monkeypatch)
    for preprocess in (STORED, TOWER, TOWER):
        for name in NAMES:
            pictures.read(root / name, preprocess)
    assert counts == dict.fromkeys([(root / name).read_bytes() for name in NAMES], 1)
    pictures.read(root / NAMES[0], STORED)  # is not kept
    assert counts[(root / NAMES[0]).read_bytes()] == 2


def test_reading_a_square_makes_those_that_follow_and_not_those_before(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = count_decodes(monkeypatch)
    kept = [KeptSquare(STORED.size, STORED.fit), KeptSquare(TOWER.size, TOWER.fit)]
    with Pictures(tmp_path / "stages", kept) as pictures:
        for name, order in ((NAMES[0], (STORED, TOWER)), (NAMES[1], (TOWER, STORED))):
            for preprocess in (*order, *order):
                pictures.read(root / name, preprocess)
    assert [counts[(root / name).read_bytes()] for name in NAMES[:2]] == [1, 2]


def test_a_square_of_another_filter_is_read_from_the_file(pictures: Pictures, root: Path) -> None:
    pictures.read(root / NAMES[0], TOWER)
    nearest = TOWER.model_copy(update={"interpolation": "nearest"})
    got, wanted = (read(root / NAMES[0], nearest) for read in (pictures.read, read_square))
    assert torch.equal(got.pixels, wanted.pixels)


def test_threads_that_want_one_file_at_the_same_time_decode_it_once(
    pictures: Pictures, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = count_decodes(monkeypatch)
    together = threading.Barrier(4)

    def read(number: int) -> torch.Tensor:
        together.wait()
        return pictures.read(root / NAMES[number % 2], TOWER).pixels

    with ThreadPoolExecutor(4) as threads:
        got = [*threads.map(read, range(4))]
    assert [*counts.values()] == [1, 1]
    assert torch.equal(got[0], got[2])
    assert torch.equal(got[1], got[3])
    assert not torch.equal(got[0], got[1])


def test_no_file_is_made_before_a_picture_is_read_and_none_is_left(
    root: Path, tmp_path: Path
) -> None:
    stages = tmp_path / "stages"
    with Pictures(stages, [KeptSquare(16, "crop")]) as pictures:
        assert not stages.exists()
        pictures.read(root / NAMES[0], TOWER)
    assert [*stages.iterdir()] == []


def test_an_unreadable_picture_is_refused_each_time(pictures: Pictures, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    for _ in range(2):
        with pytest.raises(ImageError, match="cannot be decoded"):
            pictures.read(tmp_path / "text.png", TOWER)


def test_a_full_disk_is_named(
    pictures: Pictures, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**options: Any) -> Any:
        return open("/dev/full", "r+b", buffering=0)

    monkeypatch.setattr(recsys.training.pictures.tempfile, "TemporaryFile", full)
    with pytest.raises(FileAccessError, match=r"stages cannot be written \(No space left"):
        pictures.read(root / NAMES[0], TOWER)


def config(**sections: dict[str, Any]) -> TrainConfig:
    return TrainConfig.model_validate({"name": "shop", "data": {"items": "items"}, **sections})


def test_the_squares_that_are_kept_are_those_that_a_later_reading_wants() -> None:
    tower = {"size": 100, "fit": "crop"}
    plain = config(vision=tower)
    assert kept_squares(plain) == (KeptSquare(100, "crop"),)
    aligned = config(vision=tower, alignment={"epochs": 1, "train_size": 200})
    assert kept_squares(aligned) == (KeptSquare(230, "stretch"), KeptSquare(100, "crop"))
