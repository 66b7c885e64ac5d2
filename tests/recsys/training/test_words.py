import json
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from recsys.training.words import BATCH_SIZE, ReadingCache
from vision.batches import ImageSource
from vision.errors import ImageError
from vision.words import Lines, WordReader


@pytest.fixture(scope="module")
def reader() -> WordReader:
    return WordReader()


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Pictures of more than one batch, each with a number; the last two are the same."""
    paths = []
    for n in [*range(BATCH_SIZE + 1), BATCH_SIZE]:
        picture = Image.new("RGB", (64, 40), "white")
        ImageDraw.Draw(picture).text((8, 4), f"{n + 100}", "black", ImageFont.load_default(24))
        paths.append(tmp_path / f"{len(paths)}.png")
        picture.save(paths[-1])
    return paths


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[ImageSource]:
    """The pictures that a reader was asked for."""
    asked: list[ImageSource] = []
    original = WordReader.read

    def read(self: WordReader, image: ImageSource) -> Lines:
        asked.append(image)
        return original(self, image)

    monkeypatch.setattr(WordReader, "read", read)
    return asked


def test_reading_goes_on_where_it_was_stopped(
    reader: WordReader, pictures: list[Path], calls: list[ImageSource], tmp_path: Path
) -> None:
    wanted = [reader.read(path) for path in pictures]
    assert wanted[3] == ("103",)
    calls.clear()
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(ImageError, match=rf"image {BATCH_SIZE + 2}: "):
        ReadingCache(tmp_path / "cache", reader).read([*pictures, broken])
    calls.clear()
    assert ReadingCache(tmp_path / "cache", reader).read(pictures) == wanted
    assert len(calls) <= 2  # the first batch was kept
    calls.clear()
    assert ReadingCache(tmp_path / "cache", reader).read(pictures[::-1]) == wanted[::-1]
    assert not calls


def test_a_cut_line_of_the_file_is_read_again(
    reader: WordReader, pictures: list[Path], calls: list[ImageSource], tmp_path: Path
) -> None:
    wanted = ReadingCache(tmp_path / "cache", reader).read(pictures)
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    calls.clear()
    assert ReadingCache(tmp_path / "cache", reader).read(pictures) == wanted
    assert 1 <= len(calls) <= 2  # the last two pictures are the same
    for line in file.read_text("utf-8").splitlines():
        json.loads(line)


def test_the_file_is_bounded_and_the_newest_stay(
    reader: WordReader, pictures: list[Path], calls: list[ImageSource], tmp_path: Path
) -> None:
    ReadingCache(tmp_path / "cache", reader).read(pictures)
    calls.clear()
    again = ReadingCache(tmp_path / "cache", reader, max_kept=2)
    again.read(pictures[-3:])
    assert not calls
    again.read(pictures[:1])
    assert len(calls) == 1
