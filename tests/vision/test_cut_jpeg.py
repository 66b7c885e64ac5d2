import numpy as np
import pytest

from tests.odd_pictures import encode
from tests.planted import Colour, plain_picture, smooth_picture
from vision.errors import ImageError
from vision.images import decode

PICTURE = smooth_picture(3, width=160, height=400)
MODES = ("RGB", "L", "CMYK")


def jpeg(mode: str = "RGB", **options: bool) -> bytes:
    return encode(PICTURE.convert(mode), "JPEG", quality=90, **options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("added", [b"", bytes(4_096)])
def test_a_jpeg_without_its_last_bytes_has_all_rows(
    mode: str, progressive: bool, added: bytes
) -> None:
    whole = jpeg(mode, progressive=progressive)
    picture = decode(whole[:-4] + added)
    assert picture.size == PICTURE.size
    change = np.abs(np.asarray(picture, dtype=int) - np.asarray(decode(whole), dtype=int))
    assert change[:-32].max() <= 1  # the last blocks may be grey


@pytest.mark.parametrize("mode", MODES)
def test_missing_rows_are_cut_off_and_not_grey(mode: str) -> None:
    whole = jpeg(mode)
    picture = decode(whole[: int(0.94 * len(whole))])
    assert picture.width == PICTURE.width
    assert 0.9 * PICTURE.height <= picture.height < PICTURE.height
    there = picture.height - 32
    np.testing.assert_array_equal(np.asarray(picture)[:there], np.asarray(decode(whole))[:there])


@pytest.mark.parametrize("min_side", [None, 80, 40, 1])
def test_every_scale_keeps_the_same_share_of_the_rows(min_side: int | None) -> None:
    cut = jpeg()[: int(0.94 * len(jpeg()))]
    full, reduced = decode(cut), decode(cut, min_side=min_side)
    scale = reduced.width / PICTURE.width
    assert reduced.height == pytest.approx(full.height * scale, abs=1)


@pytest.mark.parametrize("mode", MODES)
def test_a_jpeg_that_lacks_many_rows_is_refused_at_every_scale(mode: str) -> None:
    half = jpeg(mode)[: len(jpeg(mode)) // 2]
    for min_side in (None, 80, 1):
        with pytest.raises(ImageError, match=r"ends too early: \d+ of 400 rows are there"):
            decode(half, min_side=min_side)


def test_real_rows_of_one_colour_are_not_missing() -> None:
    colours: tuple[Colour, ...] = ((255, 255, 255), (128, 130, 128), (0, 0, 0))
    for colour in colours:
        whole = encode(plain_picture(colour, width=64, height=320), "JPEG")
        assert decode(whole[:-2]).height == 320


def test_a_progressive_jpeg_may_lack_its_last_details() -> None:
    whole = jpeg(progressive=True)
    starts = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xda"]
    assert len(starts) == 10  # the last five only make the numbers of the first five more precise
    for passes in (6, 9):
        picture = decode(whole[: starts[passes] + 20])
        assert picture.size == PICTURE.size
        assert np.abs(np.asarray(picture, int) - np.asarray(decode(whole), int)).mean() < 5
    for passes in (1, 4):
        with pytest.raises(ImageError, match="only its first passes are there"):
            decode(whole[: starts[passes] + 20])


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_ends_in_its_header_is_refused(progressive: bool) -> None:
    whole = jpeg(progressive=progressive)
    for length in (4, 30, whole.index(b"\xff\xda"), whole.index(b"\xff\xda") + 6):
        with pytest.raises(ImageError, match="cannot be decoded"):
            decode(whole[:length])
