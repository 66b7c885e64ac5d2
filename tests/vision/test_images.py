"""For any bytes, decode returns an upright RGB image or raises ImageError."""

import os
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.odd_pictures import bomb, encode
from vision.images import MAX_BYTES, Bands, ImageError, decode, load
from vision.transforms import Preprocess, build_reader

RED, GREEN = (200, 30, 40), (20, 180, 60)


def two_colours(width: int = 40, height: int = 20) -> Image.Image:
    """Return a picture with a red left half and a green right half."""
    picture = Image.new("RGB", (width, height), RED)
    picture.paste(GREEN, (width // 2, 0, width, height))
    return picture


def is_close(got: Any, wanted: tuple[int, int, int], tolerance: int = 12) -> bool:
    return bool(np.abs(np.asarray(got, dtype=int) - np.asarray(wanted)).max() <= tolerance)


@pytest.mark.parametrize(("alphas", "second"), [((0, 0), GREEN), ((255, 0), (255, 255, 255))])
def test_a_bmp_of_which_no_pixel_is_visible_is_opaque(
    alphas: tuple[int, int], second: tuple[int, int, int]
) -> None:
    pixels = bytes([*RED[::-1], alphas[0], *GREEN[::-1], alphas[1]])
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    info = struct.pack("<IiiHHIIiiII", 124, 2, 1, 1, 32, 3, len(pixels), 0, 0, 0, 0) + masks
    header = info.ljust(124, b"\0")  # the one of version 5
    start = struct.pack("<2sIHHI", b"BM", 14 + len(header) + len(pixels), 0, 0, 14 + len(header))
    picture = decode(start + header + pixels)
    assert [picture.getpixel((0, 0)), picture.getpixel((1, 0))] == [RED, second]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_accepted_format_gives_the_same_picture(kind: str) -> None:
    picture = decode(encode(two_colours(), kind))
    assert picture.mode == "RGB"
    assert picture.size == (40, 20)
    assert is_close(picture.getpixel((5, 10)), RED)
    assert is_close(picture.getpixel((35, 10)), GREEN)


def test_empty_bytes_are_refused() -> None:
    with pytest.raises(ImageError, match="empty: got 0 bytes"):
        decode(b"")


def test_too_many_bytes_are_refused_before_they_are_read() -> None:
    with pytest.raises(ImageError, match="at most 10 bytes, got 11"):
        decode(b"x" * 11, max_bytes=10)


def test_too_many_pixels_are_refused() -> None:
    with pytest.raises(ImageError, match="at most 799 pixels, got 40 x 20"):
        decode(encode(two_colours(), "PNG"), max_pixels=799)
    assert decode(encode(two_colours(), "PNG"), max_pixels=800).size == (40, 20)


@pytest.mark.parametrize("side", [7_000, 12_000, 50_000])
def test_a_decompression_bomb_is_refused_by_its_header(side: int) -> None:
    with pytest.raises(ImageError, match="at most 40000000 pixels"):
        decode(bomb(side, side))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_truncated_image_is_refused(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encode(noise, kind)
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode(data[: len(data) // 2])


@pytest.mark.parametrize(
    "data", [b"hello, world", b"%PDF-1.7 ...", b"\x00" * 64, b"GIF89a", b"<svg/>"]
)
def test_bytes_that_are_not_an_image_are_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="cannot be decoded: got"):
        decode(data)


def test_formats_outside_the_list_are_refused() -> None:
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode(encode(two_colours(), "PPM"))
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode(encode(two_colours(), "EPS"))


def test_the_file_extension_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "really_a_png.jpg").write_bytes(encode(two_colours(), "PNG"))
    assert decode((tmp_path / "really_a_png.jpg").read_bytes()).size == (40, 20)
    (tmp_path / "really_text.png").write_text("not a picture")
    with pytest.raises(ImageError, match=r"really_text\.png': image cannot be decoded"):
        load(tmp_path / "really_text.png")


def test_cmyk_becomes_rgb() -> None:
    picture = decode(encode(two_colours().convert("CMYK"), "JPEG", quality=95))
    assert picture.mode == "RGB"
    assert is_close(picture.getpixel((5, 10)), RED, tolerance=20)


def test_16_bit_values_are_scaled_and_not_clipped() -> None:
    values = np.linspace(0, 65_535, 64, dtype=np.uint16).reshape(8, 8)
    picture = np.asarray(decode(encode(Image.fromarray(values), "PNG")))
    assert picture.shape == (8, 8, 3)
    np.testing.assert_array_equal(picture[..., 0], values >> 8)
    np.testing.assert_array_equal(picture[..., 0], picture[..., 2])


def test_float_pixels_are_refused() -> None:
    with pytest.raises(ImageError, match="floating-point"):
        decode(encode(Image.new("F", (4, 4), 0.5), "TIFF"))


def test_transparent_parts_become_white_in_every_mode() -> None:
    rgba = two_colours().convert("RGBA")
    rgba.paste((0, 0, 0, 0), (0, 0, 20, 20))
    palette = two_colours().quantize(4)
    pictures = {
        "RGBA": encode(rgba, "PNG"),
        "WEBP": encode(rgba, "WEBP", lossless=True),
        "LA": encode(rgba.convert("LA"), "PNG"),
        "P": encode(palette, "PNG", transparency=palette.getpixel((5, 10))),
        "P with bytes": encode(rgba.quantize(4), "PNG"),
        "RGB": encode(two_colours(), "PNG", transparency=RED),
        "GIF": encode(palette, "GIF", transparency=palette.getpixel((5, 10))),
    }
    for name, data in pictures.items():
        picture = decode(data)
        assert picture.mode == "RGB", name
        assert is_close(picture.getpixel((5, 10)), (255, 255, 255)), name
        assert not is_close(picture.getpixel((35, 10)), (255, 255, 255)), name


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16"])
def test_modes_without_colour_become_rgb(mode: str) -> None:
    picture = decode(encode(Image.new(mode, (5, 4)), "PNG"))
    assert (picture.mode, picture.size) == ("RGB", (5, 4))


def test_the_first_frame_of_an_animation_is_read() -> None:
    frames = [Image.new("RGB", (9, 9), colour) for colour in (RED, GREEN)]
    for kind in ("GIF", "WEBP", "PNG"):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
        assert is_close(decode(data).getpixel((4, 4)), RED), kind


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_undone(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = two_colours()
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(turns[orientation]) if orientation in turns else upright
    picture = decode(encode(stored, "JPEG", exif=exif.tobytes(), quality=95))
    assert picture.size == (40, 20)
    assert is_close(picture.getpixel((5, 10)), RED)


def test_images_of_one_pixel_and_of_one_row_are_accepted() -> None:
    assert decode(encode(Image.new("RGB", (1, 1)), "PNG")).size == (1, 1)
    assert decode(encode(Image.new("RGB", (5_000, 1)), "PNG")).size == (5_000, 1)


def test_reduced_decoding_keeps_both_sides_above_the_minimum() -> None:
    data = encode(two_colours(800, 400), "JPEG")
    picture = decode(data, min_side=90)
    assert picture.size == (200, 100)
    assert is_close(picture.getpixel((10, 50)), RED)
    assert decode(data, min_side=1_000).size == (800, 400)


def odd_modes() -> dict[str, bytes]:
    """Return one image in every mode that is converted, by the name of the mode."""
    pixels = np.random.default_rng(0).integers(0, 256, (54, 72, 4), dtype=np.uint8)
    rgba = Image.fromarray(pixels)
    rgb, grey = rgba.convert("RGB"), rgba.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "RGBA": encode(rgba, "PNG"),
        "RGBA, turned": encode(rgba, "PNG", exif=exif),
        "LA": encode(rgba.convert("LA"), "PNG"),
        "L": encode(grey, "PNG"),
        "1": encode(grey.convert("1"), "PNG"),
        "P": encode(rgb.quantize(9), "PNG", transparency=3),
        "P with bytes": encode(rgba.quantize(9), "PNG"),
        "RGB": encode(rgb, "PNG", transparency=rgb.getpixel((5, 10))),
        "I;16": encode(deep, "PNG", exif=exif),
        "I": encode(deep.convert("I"), "TIFF"),
        "CMYK": encode(rgb.convert("CMYK"), "TIFF"),
        "WEBP": encode(rgba, "WEBP", lossless=True),
        "GIF": encode(rgb.quantize(9), "GIF", transparency=3),
        "JPEG": encode(rgb, "JPEG", exif=exif),
    }


@pytest.mark.parametrize(("mode", "data"), odd_modes().items())
def test_converting_in_bands_gives_the_same_pixels(mode: str, data: bytes) -> None:
    small = decode(data)
    large = decode(data, bands=Bands(larger_than=54 * 72 - 1, pixels=500))
    assert large.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(large), np.asarray(small))
    assert not large.getexif()


@pytest.mark.parametrize("mode", ["RGBA", "P", "I;16"])
def test_pixels_of_a_large_image_are_averaged_down_to_the_minimum(mode: str) -> None:
    data = odd_modes()[mode]
    whole = decode(data)
    assert decode(data, min_side=17, bands=Bands(pixels=500)).size == whole.size, "it is not large"
    reduced = decode(data, min_side=17, bands=Bands(larger_than=1_000, pixels=500))
    assert sorted(reduced.size) == [18, 24]
    pixels = np.asarray(whole).astype(float)
    blocks = pixels.reshape(reduced.height, 3, reduced.width, 3, 3)
    assert np.abs(np.asarray(reduced) - blocks.mean(axis=(1, 3))).max() < 1


def test_reducing_a_large_image_changes_the_pixels_of_a_tower_by_a_few_levels() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    data = encode(Image.fromarray(colours).resize((600, 450), Image.Resampling.BICUBIC), "PNG")
    for fit in ("stretch", "crop"):
        read = build_reader(Preprocess.model_validate({"size": 32, "fit": fit}))
        whole = read(decode(data, min_side=64)).int()
        reduced = read(decode(data, min_side=64, bands=Bands(larger_than=100_000))).int()
        changes = (whole - reduced).abs().float()
        assert changes.max() <= 6
        assert changes.mean() < 1


@pytest.mark.parametrize("mode", ["RGBA", "I;16"])
def test_a_large_image_takes_little_more_memory_than_its_pixels(mode: str, tmp_path: Path) -> None:
    side = 3_000
    path = tmp_path / "large.png"
    path.write_bytes(encode(Image.new(mode, (side, side)), "PNG"))
    # A process of its own has a peak of memory that is due to this image only.
    program = r"""if True:
        import re, sys
        from PIL import Image
        from vision.images import load

        def peak_kb():
            return int(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1])

        Image.new("L", (9, 9)).save(sys.argv[1] + ".png")
        load(sys.argv[1] + ".png")
        before = peak_kb()
        load(sys.argv[1], min_side=256)
        print(peak_kb() - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    decoded_mb = side * side * {"RGBA": 4, "I;16": 2}[mode] / 1e6
    assert int(done.stdout) / 1e3 < decoded_mb + 20


def test_damaged_bytes_give_an_image_or_an_image_error() -> None:
    rng = random.Random(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    wholes = [
        encode(two_colours(), "JPEG", exif=exif.tobytes()),
        encode(two_colours(), "PNG"),
        encode(two_colours().quantize(8), "GIF"),
        encode(two_colours(), "TIFF"),
        encode(two_colours(), "BMP"),
        encode(two_colours(), "WEBP"),
    ]
    refused = 0
    for _ in range(600):
        damaged = bytearray(rng.choice(wholes))
        for _ in range(rng.randint(1, 8)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            assert decode(bytes(damaged), max_pixels=1_000_000).mode == "RGB"
        except ImageError:
            refused += 1
    assert 0 < refused < 600


def test_load_stays_inside_its_root(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    (root / "shoes").mkdir(parents=True)
    data = encode(two_colours(), "PNG")
    (root / "shoes" / "1.png").write_bytes(data)
    (tmp_path / "secret.png").write_bytes(data)
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "inner.png").symlink_to(root / "shoes" / "1.png")

    assert load("shoes/1.png", root).size == (40, 20)
    assert load("shoes/../shoes/1.png", root).size == (40, 20)
    assert load("inner.png", root).size == (40, 20)
    for path in (
        "../secret.png",
        "link.png",
        str(tmp_path / "secret.png"),
        "shoes/../../secret.png",
    ):
        with pytest.raises(ImageError, match="is outside its root"):
            load(path, root)


def test_load_refuses_folders_pipes_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be found"):
        load("absent.png", tmp_path)
    with pytest.raises(ImageError, match="cannot be found"):
        load("a\0b.png", tmp_path)
    with pytest.raises(ImageError, match="must be a regular file"):
        load(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="must be a regular file"):
        load("pipe.png", tmp_path)
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with pytest.raises(ImageError, match="cannot be found"):
        load("loop.png", tmp_path)


def test_load_refuses_files_with_too_many_bytes(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(b"x" * 100)
    with pytest.raises(ImageError, match=r"large\.png': image must be at most 50 bytes"):
        load("large.png", tmp_path, max_bytes=50)
    assert MAX_BYTES == 20_000_000
