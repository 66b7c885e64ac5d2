from pathlib import Path

import pytest

from tests.odd_pictures import encode
from tests.planted import plain_picture
from vision.errors import ImageError
from vision.file_formats import describe, recognise
from vision.images import FORMATS, decode, load

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
NOT_PICTURES = {
    b"<!DOCTYPE html><title>404</title>": "an HTML page",
    b"\xef\xbb\xbf\n <!-- cdn --> <html lang=en>": "an HTML page",
    b'<?xml version="1.0"?><!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0">': "an HTML page",
    b"<svg xmlns='http://www.w3.org/2000/svg'/>": "an SVG drawing",
    b"<?xml version='1.0'?>\n<!DOCTYPE svg PUBLIC 'x'>\n<!-- made by --><svg>": "an SVG drawing",
    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>": "an XML document",
    b'{"error": "not found"}': "a JSON document",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0": "a Git LFS pointer",
    b"%PDF-1.7 ...": "a PDF document",
    b"%!PS-Adobe-3.0 EPSF-3.0": "a PostScript drawing",
    b"8BPS\0\1": "a Photoshop document",
    b"\0\0\0\x0cjP  \r\n\x87\n": "a JPEG 2000 picture",
    b"\xff\x0a\xfa\x1f": "a JPEG XL picture",
    b"\0\0\1\0\1\0": "an icon",
    b"P6\n1 1 255\nabc": "a Netpbm picture",
    b"PK\3\4\x14\0": "a ZIP archive",
    b"\x1f\x8b\x08": "a gzip archive",
    b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom": "a video",
    HEIC: "a HEIC picture",
    bytes(4_096): "zeros, as an interrupted download leaves them",
    b"Not Found": "9 bytes starting b'Not Foun'",
}


@pytest.mark.parametrize(("data", "name"), NOT_PICTURES.items(), ids=list(NOT_PICTURES.values()))
def test_the_reason_names_what_a_file_really_is(data: bytes, name: str) -> None:
    assert recognise(data) is None
    assert describe(data).startswith(name)
    with pytest.raises(ImageError, match=f"cannot be decoded: got {name}"):
        decode(data)


def test_the_reason_says_what_to_do() -> None:
    assert "pip install pillow-heif" in describe(HEIC)
    assert "git lfs pull" in describe(b"version https://git-lfs.github.com/spec/v1")
    assert "download the picture again" in describe(b"<html>")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_that_is_read_is_recognised(kind: str) -> None:
    assert recognise(encode(plain_picture((9, 9, 9)), kind)) == kind


def test_an_avif_under_the_brand_of_heic_is_read() -> None:
    data = encode(plain_picture((9, 90, 9)), "AVIF")
    assert data[8:12] == b"avif"
    general = data[:8] + b"mif1" + data[12:]
    assert recognise(general) == "AVIF"
    assert decode(general).size == (20, 20)


def test_many_comments_before_a_page_are_read_in_no_time() -> None:
    assert describe(b"<!---->" * 200 + b"<p>").startswith("1403 bytes starting")


def test_the_name_of_a_file_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(encode(plain_picture((9, 90, 9)), "WEBP"))
    assert load(path).size == (20, 20)
