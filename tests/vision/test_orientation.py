import pytest

from tests.odd_pictures import exif_block
from vision.orientation import exif_orientation, xmp_orientation


@pytest.mark.parametrize("value", range(1, 9))
def test_a_sound_orientation_is_read(value: int) -> None:
    assert exif_orientation(exif_block(value)) == value
    assert exif_orientation(exif_block(value).removeprefix(b"Exif\0\0")) == value
    assert xmp_orientation(b'<rdf:Description tiff:Orientation="%d"/>' % value) == value
    assert xmp_orientation(b"<tiff:Orientation>%d</tiff:Orientation>" % value) == value


def test_little_endian_data_are_read() -> None:
    fields = bytes.fromhex("01001201030001000000060000000000 0000".replace(" ", ""))
    assert exif_orientation(b"II*\0\x08\0\0\0" + fields) == 6


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"Exif\0\0",
        b"garbage!" * 4,
        exif_block(0),
        exif_block(9),
        exif_block(6, kind=2),  # text
        exif_block(6, kind=5),  # a fraction, whose place is wild
        exif_block(6, kind=99),
        exif_block(6, count=2),
        exif_block(6, count=2**31),
        exif_block(6, tag=0x0110),
        exif_block(6, tag=0x0110, n_tags=65_535),
        exif_block(6)[:20],
        exif_block(6).replace(b"\0\0\0\x08", b"\xff\xff\xff\xff"),
    ],
)
def test_an_orientation_that_makes_no_sense_is_none(exif: bytes) -> None:
    assert exif_orientation(exif) is None


@pytest.mark.parametrize("xmp", [b"", b"tiff:Orientation", b'tiff:Orientation="9"', b"\xff\0<"])
def test_broken_xmp_has_no_orientation(xmp: bytes) -> None:
    assert xmp_orientation(xmp) is None
