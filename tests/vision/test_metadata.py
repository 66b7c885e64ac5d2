"""Broken metadata never stops a picture; warnings of Pillow would be errors here."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.odd_pictures import encode, exif_block, in_jpeg, in_png, in_tiff, in_webp
from tests.planted import smooth_picture
from vision.images import decode
from vision.metadata import strip_metadata

PICTURE = smooth_picture(0, width=40, height=24)
PLAIN = {kind: encode(PICTURE, kind) for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")}
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
XMP_KEY = b"http://ns.adobe.com/xap/1.0/\0"


def broken_jpegs() -> dict[str, bytes]:
    segments = {
        "EXIF that is garbage": (0xE1, b"Exif\0\0" + b"garbage!" * 4),
        "EXIF that is empty": (0xE1, b"Exif\0\0"),
        "EXIF with a wild place": (0xE1, exif_block(6, kind=5)),
        "EXIF with a huge count": (0xE1, exif_block(6, count=2**31)),
        "EXIF that is cut": (0xE1, exif_block(1)[:20]),
        "EXIF of a wild resolution": (0xE1, exif_block(1, tag=0x0128, kind=2, count=200)),
        "XMP": (0xE1, XMP_KEY + b"<broken"),
        "colour profile without numbers": (0xE2, b"ICC_PROFILE\0"),
        "colour profile in too few parts": (0xE2, b"ICC_PROFILE\0\1\3profile"),
        "list of pictures": (0xE2, b"MPF\0garbage"),
        "list of pictures that is cut": (0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff"),
        "IPTC that is cut": (0xED, b"Photoshop 3.0\x008BIM\x04\x04"),
        "Adobe segment that is cut": (0xEE, b"Adobe"),
        "JFIF segment that is cut": (0xE0, b"JFIF\0"),
        "comment": (0xFE, b"\xff" * 100),
    }
    return {name: in_jpeg(PLAIN["JPEG"], *segment) for name, segment in segments.items()}


def broken_pngs() -> dict[str, bytes]:
    bomb = zlib.compress(b"a" * 5_000_000)
    chunks: dict[str, tuple[bytes, bytes] | tuple[bytes, bytes, int]] = {
        "EXIF without a header": (b"eXIf", b"\0\x08\0\x02\x01\x12\0\x03"),
        "text that is a bomb": (b"zTXt", b"Comment\0\0" + bomb),
        "international text that is a bomb": (b"iTXt", b"Comment\0\1\0\0\0" + bomb),
        "text that cannot be inflated": (b"zTXt", b"Comment\0\0abc"),
        "text of an unknown method": (b"zTXt", b"Comment\0\7abc"),
        "text with a wrong checksum": (b"tEXt", b"Comment\0abc", 1),
        "profile that is no number": (
            b"zTXt",
            b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 2\nzz"),
        ),
        "colour profile": (b"iCCP", b"name\0\7abc"),
        "colour profile without a name": (b"iCCP", b""),
        "gamma": (b"gAMA", b"1"),
        "white point": (b"cHRM", b"123"),
        "resolution": (b"pHYs", b"1"),
        "colour space": (b"sRGB", b""),
        "animation": (b"acTL", b"\0"),
        "animation of no frames": (b"acTL", bytes(8)),
        "frame": (b"fcTL", b"\0"),
        "transparency that is cut": (b"tRNS", b"1"),
        "transparency with a wrong checksum": (b"tRNS", b"\0\1\0\1\0\1", 3),
    }
    return {
        **{name: in_png(PLAIN["PNG"], *chunk) for name, chunk in chunks.items()},
        "no end": PLAIN["PNG"][:-12],
    }


def broken_others() -> dict[str, bytes]:
    described = encode(PICTURE, "AVIF", exif=exif_block(2, tag=0x0128))
    return {
        "WEBP, EXIF": in_webp(PLAIN["WEBP"], b"EXIF", b"garbage!"),
        "WEBP, EXIF that is cut": in_webp(PLAIN["WEBP"], b"EXIF", b"II*\0", length=4_000),
        "WEBP, XMP that is cut": in_webp(PLAIN["WEBP"], b"XMP ", b"<x", length=4_000),
        "TIFF, colour profile": in_tiff(PLAIN["TIFF"], 34675, 7, 5_000, 2**31),
        "TIFF, XMP": in_tiff(PLAIN["TIFF"], 700, 1, 5_000, 2**31),
        "TIFF, EXIF": in_tiff(PLAIN["TIFF"], 34665, 4, 1, 10**9),
        "TIFF, resolution": in_tiff(PLAIN["TIFF"], 282, 5, 1, 10**9),
        "TIFF, orientation": in_tiff(PLAIN["TIFF"], 274, 2, 1, 6),
        "AVIF, EXIF": described.replace(b"MM\0*", b"bad!"),
    }


@pytest.mark.parametrize(("name", "data"), broken_jpegs().items())
def test_a_jpeg_with_broken_metadata_has_its_pixels(name: str, data: bytes) -> None:
    assert np.array_equal(decode(data), decode(PLAIN["JPEG"])), name


@pytest.mark.parametrize(("name", "data"), broken_pngs().items())
def test_a_png_with_broken_metadata_has_its_pixels(name: str, data: bytes) -> None:
    assert np.array_equal(decode(data), PICTURE), name


@pytest.mark.parametrize(("name", "data"), broken_others().items())
def test_another_picture_with_broken_metadata_has_its_pixels(name: str, data: bytes) -> None:
    assert data != PLAIN[name[:4]]
    assert np.array_equal(decode(data), decode(PLAIN[name[:4]])), name


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_sound_orientation_is_undone_as_pillow_does(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x0110] = "a camera"
    data = encode(PICTURE, kind, exif=exif)
    with Image.open(io.BytesIO(data)) as opened:
        wanted = ImageOps.exif_transpose(opened).convert("RGB")
    assert np.array_equal(decode(data), wanted)


def test_an_avif_is_turned_as_its_container_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # Pillow writes the turn of the container
    assert decode(encode(PICTURE, "AVIF", exif=exif)).size == (24, 40)


@pytest.mark.parametrize(
    "data",
    [
        in_jpeg(PLAIN["JPEG"], 0xE1, XMP_KEY + XMP),
        in_png(PLAIN["PNG"], b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        in_png(PLAIN["PNG"], b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
        in_webp(PLAIN["WEBP"], b"XMP ", XMP),
    ],
)
def test_xmp_turns_a_picture_without_an_orientation_in_exif(data: bytes) -> None:
    assert decode(data).size == (24, 40)


def test_the_orientation_of_exif_counts_more_than_that_of_xmp() -> None:
    both = in_jpeg(in_jpeg(PLAIN["JPEG"], 0xE1, XMP_KEY + XMP), 0xE1, exif_block(1))
    assert decode(both).size == PICTURE.size
    nonsense = in_jpeg(in_jpeg(PLAIN["JPEG"], 0xE1, XMP_KEY + XMP), 0xE1, exif_block(9))
    assert decode(nonsense).size == (24, 40)


def test_a_png_of_imagemagick_is_turned() -> None:
    digits = exif_block(6).hex().encode()
    profile = b"\nexif\n      %d\n%s\n" % (len(exif_block(6)), digits)
    text = b"Raw profile type exif\0\0" + zlib.compress(profile)
    assert decode(in_png(PLAIN["PNG"], b"zTXt", text)).size == (24, 40)


def test_a_plain_file_is_returned_as_it_is() -> None:
    for kind in ("JPEG", "PNG"):
        assert strip_metadata(PLAIN[kind], kind).data is PLAIN[kind]  # type: ignore[arg-type]


def test_what_was_added_is_taken_away_again() -> None:
    segment = in_jpeg(PLAIN["JPEG"], 0xE1, exif_block(8))
    assert strip_metadata(segment, "JPEG") == (PLAIN["JPEG"], 8)
    chunk = in_png(PLAIN["PNG"], b"eXIf", exif_block(8))
    assert strip_metadata(chunk, "PNG") == (PLAIN["PNG"], 8)


def test_a_big_tiff_is_read_and_turned() -> None:
    width, height = PICTURE.size
    pixels = PICTURE.convert("L").tobytes()
    values = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 300, 274: 6, 277: 1}
    values |= {278: height, 279: len(pixels)}
    tags = [struct.pack("<HHQQ", tag, 3, 1, value) for tag, value in values.items()]
    header = b"II" + struct.pack("<HHHQ", 43, 8, 0, 16)
    table = struct.pack("<Q", len(tags)) + b"".join(tags) + bytes(8)
    data = (header + table).ljust(300, b"\0") + pixels
    turned = PICTURE.convert("L").transpose(Image.Transpose.ROTATE_270).convert("RGB")
    assert np.array_equal(decode(data), turned)
