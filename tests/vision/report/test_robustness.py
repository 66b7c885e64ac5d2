"""Every change is a pure function: its strength is what it says, and a seed repeats it."""

import numpy as np
import pytest
from PIL import Image

from vision.report.robustness import (
    CORRUPTIONS,
    add_noise,
    blur,
    compress,
    corrupt,
    expose,
    rotate,
    shrink,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def picture() -> Image.Image:
    """A smooth picture with a bright square, 60 x 48."""
    x, y = np.meshgrid(np.linspace(60, 160, 60), np.linspace(70, 150, 48))
    pixels = np.stack([x, y, (x + y) / 2], axis=2)
    pixels[12:30, 20:40] = (220, 60, 40)
    return Image.fromarray(pixels.astype(np.uint8))


def pixels(picture: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(picture, dtype=np.float64)


def test_every_kind_changes_more_with_every_strength_and_nothing_else(
    picture: Image.Image,
) -> None:
    original = pixels(picture)
    for name, (change, strengths, _) in CORRUPTIONS.items():
        results = [change(picture, strength, rng()) for strength in strengths]
        assert {(r.size, r.mode) for r in results} == {(picture.size, "RGB")}, name
        distances = [np.abs(pixels(r) - original).mean() for r in results]
        assert 0 < distances[0] < distances[1] < distances[2], name
    np.testing.assert_array_equal(pixels(picture), original)


def test_all_changes_come_in_the_order_of_the_table_and_repeat_with_the_seed(
    picture: Image.Image,
) -> None:
    changed = corrupt(picture, rng(3))
    assert len(changed) == 3 * len(CORRUPTIONS)
    for one, again in zip(changed, corrupt(picture, rng(3)), strict=True):
        np.testing.assert_array_equal(pixels(one), pixels(again))
    other = corrupt(picture, rng(4))
    noise = 3 * list(CORRUPTIONS).index("noise")
    assert (pixels(changed[noise]) != pixels(other[noise])).any()
    np.testing.assert_array_equal(pixels(changed[0]), pixels(blur(picture, 0.5, rng())))


def test_noise_has_the_deviation_that_it_says() -> None:
    grey = Image.new("RGB", (200, 200), (128, 128, 128))
    difference = pixels(add_noise(grey, 10.0, rng())) - 128
    assert difference.std() == pytest.approx(25.5, rel=0.01)
    assert abs(difference.mean()) < 0.5


def test_light_is_multiplied_and_clipped_at_white() -> None:
    picture = Image.new("RGB", (4, 4), (100, 40, 200))
    assert expose(picture, 0.5, rng()).getpixel((1, 1)) == (50, 20, 100)
    assert expose(picture, 2.0, rng()).getpixel((1, 1)) == (200, 80, 255)


def test_blur_is_a_share_of_the_picture_whatever_its_size(picture: Image.Image) -> None:
    large = picture.resize((600, 480), Image.Resampling.BICUBIC)
    small_blur = pixels(blur(picture, 5.0, rng()))
    large_blur = pixels(blur(large, 5.0, rng()).resize(picture.size, Image.Resampling.BOX))
    assert np.abs(small_blur - large_blur).mean() < 1.0


def test_rotation_turns_by_the_angle_and_fills_corners_with_the_median() -> None:
    pixels_ = np.full((101, 101, 3), 200, dtype=np.uint8)
    pixels_[45:56, 85:96] = 0  # to the right of the centre, 40 pixels away
    turned = rotate(Image.fromarray(pixels_), 30.0, rng())
    rows, columns = np.nonzero(np.asarray(turned)[:, :, 0] < 100)
    angle = np.degrees(np.arctan2(50 - rows.mean(), columns.mean() - 50))
    assert abs(angle) == pytest.approx(30.0, abs=0.5)
    assert turned.getpixel((0, 0)) == (200, 200, 200)


def test_rotation_goes_both_ways() -> None:
    picture = Image.fromarray(rng().integers(0, 255, (20, 20, 3), dtype=np.uint8))
    results = {rotate(picture, 20.0, rng(seed)).tobytes() for seed in range(8)}
    assert len(results) == 2


def test_compression_writes_a_file_of_that_quality(picture: Image.Image) -> None:
    distances = [
        np.abs(pixels(compress(picture, q, rng())) - pixels(picture)).mean() for q in (5, 95)
    ]
    assert distances[0] > 3 * distances[1]


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((60, 48), (40, 32)), ((20, 64), (20, 64)), ((3000, 40), (2400, 32))],
)
def test_shrinking_brings_the_shorter_side_down_and_never_up(
    size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    assert shrink(Image.new("RGB", size), 32).size == wanted


def test_a_picture_of_one_pixel_can_be_changed() -> None:
    changed = corrupt(Image.new("RGB", (1, 1), (9, 9, 9)), rng())
    assert {one.size for one in changed} == {(1, 1)}
