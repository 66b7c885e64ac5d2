import io
import sys
import time
from pathlib import Path

import matplotlib
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from vision.errors import ImageError, MissingExtraError
from vision.words import (
    MAX_LINES,
    MAX_SIDE,
    MIN_CONFIDENCE,
    WordReader,
    can_read_words,
    content_key,
    require_reader,
    shared_reader,
)

# DejaVu has letters of scripts that the reader was not trained on.
FONT = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"


def draw(*lines: str, size: tuple[int, int] = (320, 240), height: int = 32) -> Image.Image:
    """Return dark lines of text on a light picture, one below the other."""
    picture = Image.new("RGB", size, (235, 235, 225))
    pen, font = ImageDraw.Draw(picture), ImageFont.truetype(FONT, height)
    for n, line in enumerate(lines):
        pen.text((8, 8 + n * 3 * height // 2), line, fill=(20, 30, 60), font=font)
    return picture


def as_bytes(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def reader() -> WordReader:
    return WordReader()


def test_drawn_words_are_read_and_higher_letters_come_first(reader: WordReader) -> None:
    picture = draw("small print")
    font = ImageFont.truetype(FONT, 64)
    ImageDraw.Draw(picture).text((8, 120), "ARLA", fill=(20, 30, 60), font=font)
    assert [line.lower().replace(" ", "") for line in reader.read(picture)] == [
        "arla",
        "smallprint",
    ]


def test_a_picture_is_read_the_same_as_file_bytes_and_opened(
    reader: WordReader, tmp_path: Path
) -> None:
    picture = draw("Mellanmjölk")
    (tmp_path / "a.png").write_bytes(as_bytes(picture))
    wanted = WordReader().read(picture)
    assert wanted == ("Mellanmjölk",)
    assert reader.read(as_bytes(picture)) == reader.read(tmp_path / "a.png") == wanted


def test_lines_have_probabilities_and_blurred_letters_lower_ones(reader: WordReader) -> None:
    clear = draw("Mellanmjölk")
    (sharp,), blurred = (
        reader.read_lines(one) for one in (clear, clear.filter(ImageFilter.GaussianBlur(4)))
    )
    assert sharp.text == "Mellanmjölk"
    assert all(MIN_CONFIDENCE <= line.probability < sharp.probability <= 1 for line in blurred)


@pytest.mark.parametrize("size", [(320, 240), (1, 1), (900, 3)])
def test_a_picture_without_letters_has_no_lines(reader: WordReader, size: tuple[int, int]) -> None:
    assert reader.read(draw(size=size)) == ()


def test_of_a_thousand_words_a_bounded_number_of_lines_is_read(reader: WordReader) -> None:
    lines = [" ".join(f"word{n}" for n in range(row, row + 20)) for row in range(0, 1_000, 20)]
    full = draw(*lines, size=(1_600, 1_600), height=18)
    start = time.process_time()
    read = reader.read(full)
    assert 0 < len(read) <= MAX_LINES
    assert time.process_time() - start < 60


def test_letters_of_an_unknown_script_raise_nothing_and_give_no_word_of_it(
    reader: WordReader,
) -> None:
    read = reader.read(draw("ქართული ღვინო", "Հայաստան"))
    assert not any("ა" <= letter <= "ჰ" or "Ա" <= letter <= "և" for letter in "".join(read))


def test_what_was_read_last_is_remembered_by_content() -> None:
    reader = WordReader(max_remembered=1)
    first, second = draw("first"), draw("second")
    assert reader.read(first) == ("first",)
    assert list(reader._remembered) == [content_key(first)]
    assert reader.read(first.copy()) == ("first",)
    assert reader.read(second) == ("second",)
    assert list(reader._remembered) == [content_key(second)]


def test_pictures_of_other_shapes_with_the_same_bytes_differ() -> None:
    assert content_key(Image.new("RGB", (2, 3))) != content_key(Image.new("RGB", (3, 2)))


def test_a_large_picture_is_reduced() -> None:
    from vision.words import _prepare

    assert max(_prepare(Image.new("RGB", (5_000, 100))).shape) == MAX_SIDE


def test_bytes_that_are_no_image_raise(reader: WordReader) -> None:
    with pytest.raises(ImageError, match="cannot be decoded"):
        reader.read(b"no image")


def test_all_callers_of_a_process_share_one_reader() -> None:
    assert shared_reader() is shared_reader() is require_reader()


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_read_words()
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    assert not can_read_words()
    assert shared_reader() is None
    with pytest.raises(MissingExtraError, match="reading words needs rapidocr"):
        require_reader()
    with pytest.raises(MissingExtraError, match=r"pip install 'vitrine-recsys\[ocr\]'"):
        WordReader()
