"""Known colours get their names, and the background does not count."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from tests.odd_pictures import broken, encode, readable
from vision.images import ImageError, decode
from vision.palette import (
    CENTRE_WIDTH,
    PALETTE,
    SIDE,
    ColourShare,
    find_foreground,
    name_colours,
    to_lab,
)

# The sixteen colours of HTML 4 and their names in the palette.
HTML = {
    "aqua": "turquoise",
    "black": "black",
    "blue": "blue",
    "fuchsia": "pink",
    "gray": "grey",
    "green": "green",
    "lime": "green",
    "maroon": "burgundy",
    "navy": "navy",
    "olive": "olive",
    "purple": "purple",
    "red": "red",
    "silver": "grey",
    "teal": "turquoise",
    "white": "white",
    "yellow": "yellow",
}
# Colours of cloth in photos and their names.
CLOTH = {
    "#4a6a8c": "blue",  # washed denim
    "#1b2233": "navy",
    "#6b4a33": "brown",  # leather
    "#e3d5bd": "beige",
    "#5c6038": "olive",
    "#262627": "black",
    "#8f9093": "grey",
    "#e9b7c0": "pink",
    "#6d2035": "burgundy",
    "orange": "orange",
}


def flat(colour: str, mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (60, 80), colour).convert(mode)


def product(colour: str, background: str, *, box: tuple[int, int, int, int]) -> Image.Image:
    picture = Image.new("RGB", (64, 64), background)
    ImageDraw.Draw(picture).rectangle(box, fill=colour)
    return picture


def only(colour: str) -> list[ColourShare]:
    return [ColourShare(colour, pytest.approx(1.0))]


@pytest.mark.parametrize(
    ("pixel", "lab"),
    [
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.74, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((119, 119, 119), (50.03, 0.0, 0.0)),
        ((10, 5, 2), (1.60, 0.89, 1.60)),  # in the range of the tangent
    ],
)
def test_lab_values_are_those_of_the_standard(
    pixel: tuple[int, int, int], lab: tuple[float, float, float]
) -> None:
    got = to_lab(np.array([pixel], dtype=np.uint8))[0]
    np.testing.assert_allclose(got, lab, atol=0.05)


@pytest.mark.parametrize(("colour", "name"), [*HTML.items(), *CLOTH.items()])
def test_a_flat_colour_has_its_name(colour: str, name: str) -> None:
    assert name_colours(flat(colour)) == only(name)


@pytest.mark.parametrize("name", PALETTE)
def test_every_anchor_belongs_to_one_colour_only(name: str) -> None:
    others = [lab for other, anchors in PALETTE.items() if other != name for lab in anchors]
    assert not set(PALETTE[name]) & set(others)


def test_two_halves_have_equal_shares_and_the_largest_share_comes_first() -> None:
    picture = Image.new("RGB", (80, 80), "red")
    picture.paste("blue", (40, 0, 80, 80))
    assert dict(name_colours(picture)) == pytest.approx({"red": 0.5, "blue": 0.5})
    picture.paste("blue", (30, 0, 80, 80))
    assert [found.colour for found in name_colours(picture)] == ["blue", "red"]


def test_shares_equal_those_of_a_loop_over_the_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    totals = dict.fromkeys(PALETTE, 0.0)
    for row in range(SIDE):
        for column in range(SIDE):
            lab = to_lab(pixels[row, column])
            nearest = min(
                (float(np.linalg.norm(lab - np.array(anchor))), name)
                for name, anchors in PALETTE.items()
                for anchor in anchors
            )[1]
            y, x = (2 * (row + 0.5) / SIDE - 1), (2 * (column + 0.5) / SIDE - 1)
            totals[nearest] += np.exp(-(x**2 + y**2) / (2 * CENTRE_WIDTH**2))
    found = dict(name_colours(Image.fromarray(pixels), min_share=0.0))
    whole = sum(totals.values())
    wanted = {name: total / whole for name, total in totals.items() if total}
    assert found == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("background", ["white", "#e8e8e8", "black", "#77aadd"])
def test_a_plain_background_does_not_count(background: str) -> None:
    picture = product("red", background, box=(20, 12, 44, 52))
    assert name_colours(picture) == only("red")


def test_a_slightly_noisy_background_counts_as_plain() -> None:
    picture = np.asarray(product("olive", "white", box=(20, 12, 44, 52))).astype(np.int64)
    noise = np.random.default_rng(0).integers(-4, 1, picture.shape)
    noisy = Image.fromarray(np.clip(picture + noise, 0, 255).astype(np.uint8))
    assert name_colours(noisy) == only("olive")


def test_white_inside_the_outline_of_a_white_product_is_foreground() -> None:
    picture = product("#d8d8d8", "white", box=(12, 12, 52, 52))
    ImageDraw.Draw(picture).rectangle((14, 14, 50, 50), fill="white")
    foreground = find_foreground(to_lab(np.asarray(picture)))
    assert foreground.sum() == 41 * 41
    assert name_colours(picture)[0].colour == "white"


def test_a_picture_without_a_visible_product_has_the_colour_of_its_background() -> None:
    assert name_colours(flat("white")) == only("white")
    speck = product("black", "white", box=(30, 30, 32, 32))
    assert name_colours(speck) == [ColourShare("white", pytest.approx(0.99, abs=0.005))]


def test_all_pixels_count_without_a_plain_background() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert find_foreground(to_lab(pixels)).all()


def test_the_centre_counts_more_than_the_edges() -> None:
    stripes = Image.new("RGB", (60, 60), "red")
    stripes.paste("green", (20, 0, 40, 60))
    stripes.paste("blue", (40, 0, 60, 60))
    shares = dict(name_colours(stripes))
    assert shares["green"] > 0.5
    assert shares["red"] == pytest.approx(shares["blue"], abs=0.02)


def test_an_alpha_channel_marks_the_product() -> None:
    picture = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    picture.paste((255, 255, 255, 255), (20, 12, 44, 52))
    assert name_colours(picture) == only("white")
    assert name_colours(picture.quantize(4)) == only("white")
    assert name_colours(Image.new("RGBA", (9, 9), (255, 0, 0, 0))) == []


@pytest.mark.parametrize("mode", ["CMYK", "P", "RGBA", "L", "1", "YCbCr", "HSV", "LA"])
def test_the_mode_does_not_matter(mode: str) -> None:
    for colour in ("black", "white"):
        assert name_colours(flat(colour, mode)) == only(colour)
    if mode not in ("L", "1", "LA"):
        assert name_colours(flat("red", mode)) == only("red")


@pytest.mark.parametrize("name", readable())
def test_odd_pictures_have_colours_with_shares_that_sum_to_1(name: str) -> None:
    colours = name_colours(decode(readable()[name]), min_share=0.0)
    shares = [colour.share for colour in colours]
    assert sum(shares) == pytest.approx(1.0)
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize("name", broken())
def test_broken_pictures_are_refused(name: str) -> None:
    with pytest.raises(ImageError, match="image"):
        name_colours(decode(broken()[name]))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1), st.floats(0.0, 1.0))
def test_shares_are_sorted_above_the_minimum_and_equal_for_the_mirror_image(
    n_blocks: int, seed: int, min_share: float
) -> None:
    blocks = np.random.default_rng(seed).integers(0, 256, (n_blocks, n_blocks, 3), dtype=np.uint8)
    picture = Image.fromarray(blocks).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    found = name_colours(picture, min_share=min_share)
    shares = [colour.share for colour in found]
    assert shares == sorted(shares, reverse=True)
    assert all(share >= min_share for share in shares)
    assert sum(shares) <= 1.0 + 1e-9
    mirrored = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    everything = dict(name_colours(picture, min_share=0.0))
    assert sum(everything.values()) == pytest.approx(1.0)
    assert dict(name_colours(mirrored, min_share=0.0)) == pytest.approx(everything)


def test_pictures_with_16_bits_and_impossible_shares_are_refused() -> None:
    with pytest.raises(ValueError, match=r"8 bits a channel, got mode 'I;16'; read it with"):
        name_colours(Image.new("I;16", (4, 4)))
    with pytest.raises(ValueError, match=r"min_share must be from 0 to 1, got 1.5"):
        name_colours(flat("red"), min_share=1.5)


def test_a_jpeg_of_a_product_on_white_has_the_products_colours() -> None:
    picture = product("navy", "white", box=(16, 8, 48, 56))
    ImageDraw.Draw(picture).rectangle((16, 8, 48, 20), fill="#e0d0b0")
    shares = name_colours(decode(encode(picture, "JPEG", quality=85)))
    assert [share.colour for share in shares] == ["navy", "beige"]
