"""Every corruption has the strength that it claims, and the same seed gives the same pixels."""

import numpy as np
import pytest
from PIL import Image

from tests.planted import GREY, Colour, coloured_square, plain_picture
from vision.arrays import Doubles
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
    """Return a smooth picture with a bright square, 60 x 48 pixels."""
    x, y = np.meshgrid(np.linspace(60, 160, 60), np.linspace(70, 150, 48))
    pixels = np.stack([x, y, (x + y) / 2], axis=2)
    pixels[12:30, 20:40] = (220, 60, 40)
    return Image.fromarray(pixels.astype(np.uint8))


def pixels(picture: Image.Image) -> Doubles:
    return np.asarray(picture, dtype=np.float64)


def test_every_corruption_grows_with_its_strength_and_keeps_size_and_mode(
    picture: Image.Image,
) -> None:
    original = pixels(picture)
    for name, (change, strengths, _) in CORRUPTIONS.items():
        results = [change(picture, strength, rng()) for strength in strengths]
        assert {(r.size, r.mode) for r in results} == {(picture.size, "RGB")}, name
        distances = [np.abs(pixels(r) - original).mean() for r in results]
        assert 0 < distances[0] < distances[1] < distances[2], name
    np.testing.assert_array_equal(pixels(picture), original)


def test_corruptions_are_in_the_order_of_the_table_and_repeat_with_the_seed(
    picture: Image.Image,
) -> None:
    changed = corrupt(picture, rng(3))
    assert len(changed) == 3 * len(CORRUPTIONS)
    for first, again in zip(changed, corrupt(picture, rng(3)), strict=True):
        np.testing.assert_array_equal(pixels(first), pixels(again))
    other = corrupt(picture, rng(4))
    noise = 3 * list(CORRUPTIONS).index("noise")
    assert (pixels(changed[noise]) != pixels(other[noise])).any()
    np.testing.assert_array_equal(pixels(changed[0]), pixels(blur(picture, 0.5, rng())))


def test_noise_has_the_standard_deviation_of_its_strength() -> None:
    grey = plain_picture(GREY, width=200, height=200)
    difference = pixels(add_noise(grey, 10.0, rng())) - 128
    assert difference.std() == pytest.approx(25.5, rel=0.01)
    assert abs(difference.mean()) < 0.5


def test_light_is_multiplied_and_clipped_at_white() -> None:
    picture = plain_picture((100, 40, 200))
    assert expose(picture, 0.5, rng()).getpixel((1, 1)) == (50, 20, 100)
    assert expose(picture, 2.0, rng()).getpixel((1, 1)) == (200, 80, 255)


def test_blur_is_relative_to_the_size_of_the_picture(picture: Image.Image) -> None:
    large = picture.resize((600, 480), Image.Resampling.BICUBIC)
    small_blur = pixels(blur(picture, 5.0, rng()))
    large_blur = pixels(blur(large, 5.0, rng()).resize(picture.size, Image.Resampling.BOX))
    assert np.abs(small_blur - large_blur).mean() < 1.0


def test_rotation_turns_by_the_angle_and_fills_corners_with_the_median() -> None:
    # The black square is 40 pixels to the right of the centre.
    light: Colour = (200, 200, 200)
    square = coloured_square((0, 0, 0), left=85, top=45, side=11, size=(101, 101), background=light)
    turned = rotate(square, 30.0, rng())
    rows, columns = np.nonzero(np.asarray(turned)[:, :, 0] < 100)
    angle = np.degrees(np.arctan2(50 - rows.mean(), columns.mean() - 50))
    assert abs(angle) == pytest.approx(30.0, abs=0.5)
    assert turned.getpixel((0, 0)) == light


def test_rotation_goes_both_ways() -> None:
    picture = Image.fromarray(rng().integers(0, 255, (20, 20, 3), dtype=np.uint8))
    results = {rotate(picture, 20.0, rng(seed)).tobytes() for seed in range(8)}
    assert len(results) == 2


def test_compression_at_low_quality_changes_more_pixels(picture: Image.Image) -> None:
    distances = [
        np.abs(pixels(compress(picture, q, rng())) - pixels(picture)).mean() for q in (5, 95)
    ]
    assert distances[0] > 3 * distances[1]


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((60, 48), (40, 32)), ((20, 64), (20, 64)), ((3000, 40), (2400, 32))],
)
def test_shrink_reduces_the_shorter_side_and_never_enlarges_it(
    size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    assert shrink(Image.new("RGB", size), 32).size == wanted


def test_a_picture_of_one_pixel_can_be_corrupted() -> None:
    changed = corrupt(plain_picture((9, 9, 9), width=1, height=1), rng())
    assert {result.size for result in changed} == {(1, 1)}
