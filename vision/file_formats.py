"""What a file is by its first bytes, whatever its name says."""

import re
from typing import Literal

# A closed list: some of Pillow's other formats run external programs (EPS) or need much memory
# (JPEG 2000), and nobody photographs products in the rest.
Format = Literal["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]

_READ: tuple[tuple[re.Pattern[bytes], Format], ...] = (
    (re.compile(rb"\xff\xd8\xff"), "JPEG"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "PNG"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "WEBP"),
    (re.compile(rb"GIF8[79]a"), "GIF"),
    (re.compile(rb"BM"), "BMP"),
    (re.compile(rb"II[*+]\0|MM\0\*"), "TIFF"),
)
_CONVERT = "convert it to JPEG or PNG"
_EXPORT = "export it as JPEG or PNG"
_PAGE = "the server sent it in place of the picture; download the picture again"
_PROLOG = rb"(?:\s|<\?[^>]*>|<!--(?:(?!-->).)*-->|<!doctype (?!html)[^>]*>)*+"
# What people save under the name of a picture: pattern of the first bytes, name, what to do.
_REFUSED = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), name, fix)
    for pattern, name, fix in (
        (_PROLOG + rb"<(?:!doctype html|html|head|body)", "an HTML page", _PAGE),
        (_PROLOG + rb"<svg", "an SVG drawing", _EXPORT),
        (rb"\s*<\?xml", "an XML document", _PAGE),
        (rb"\s*\{\s*\"", "a JSON document", _PAGE),
        (rb"version https://git-lfs", "a Git LFS pointer", "run `git lfs pull` to get the picture"),
        (rb"%PDF", "a PDF document", _EXPORT),
        (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript drawing", _EXPORT),
        (rb"8BPS", "a Photoshop document", _EXPORT),
        (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 picture", _CONVERT),
        (rb"\x00\x00\x00\x0cJXL |\xff\x0a", "a JPEG XL picture", _CONVERT),
        (rb"\x00\x00[\x01\x02]\x00", "an icon", _CONVERT),
        (rb"P[1-7]\s", "a Netpbm picture", _CONVERT),
        (rb"PK\x03\x04", "a ZIP archive", "unpack it"),
        (rb"\x1f\x8b", "a gzip archive", "unpack it"),
        (rb".{4}ftyp", "a video", "export a frame of it as JPEG or PNG"),
        (rb"\x00{16}", "zeros, as an interrupted download leaves them", "download it again"),
    )
)
_HEIC_FIX = "convert it to JPEG, as docs/vision.md shows (pip install pillow-heif)"
_FIRST_BYTES = 1024  # comments may come before the first tag of a page


def recognise(data: bytes) -> Format | None:
    """Return the format of a picture that we read, None for any other file."""
    for pattern, name in _READ:
        if pattern.match(data):
            return name
    return "AVIF" if _brands(data) & {b"avif", b"avis"} else None


def describe(data: bytes) -> str:
    """Return what a file is that we do not read, and what to do about it."""
    head = data[:_FIRST_BYTES].removeprefix(b"\xef\xbb\xbf")
    if _brands(data) & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}:
        return f"a HEIC picture ({len(data)} bytes); {_HEIC_FIX}"
    for pattern, name, fix in _REFUSED:
        if pattern.match(head):
            return f"{name} ({len(data)} bytes); {fix}"
    return f"{len(data)} bytes starting {data[:8]!r}, which are of no picture format that we know"


def _brands(data: bytes) -> set[bytes]:
    """Return the brands of a file in the container that HEIC, AVIF and videos share."""
    if data[4:8] != b"ftyp":
        return set()
    box = data[8 : min(int.from_bytes(data[:4]), 256)]
    # The second field is a version and no brand.
    return {box[at : at + 4] for at in range(0, len(box), 4) if at != 4}
