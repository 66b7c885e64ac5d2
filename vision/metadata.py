"""Pictures without their metadata, over which decoding can then not stumble.

Cameras, editors and shops write EXIF, XMP, IPTC, colour profiles, previews and comments beside the
pixels, and often break them. Pillow refuses such a file or warns on the terminal, where browsers
show the picture. So only what the pixels need reaches Pillow, with the orientation beside it.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from vision.errors import ImageError
from vision.file_formats import Format
from vision.orientation import ORIENTATION, exif_orientation, tag_orientation, xmp_orientation

_PNG_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_WEBP_CHUNKS = (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")
_WEBP_METADATA = 0x2C  # flags of colour profile, EXIF and XMP
# Size, compression, meaning of the channels, and where the pixels are.
_TIFF_TAGS = frozenset(
    [
        *(256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320),
        *(322, 323, 324, 325, 332, 338, 339, 347, *range(512, 522), 529, 530, 531, 532, 50674),
    ]
)
_TIFF_XMP = 700
_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}
_MAX_TEXT_BYTES = 1_000_000  # of one compressed text, which may claim any size


class Bare(NamedTuple):
    """A picture file without metadata, and the orientation that they gave."""

    data: bytes
    orientation: int  # as in EXIF: 1 is upright, 2 to 8 are turned or mirrored


def strip_metadata(data: bytes, file_format: Format) -> Bare:
    """Return a picture file without its metadata; the pixels stay the same.

    An orientation that makes no sense counts as upright. GIF and BMP have no metadata that Pillow
    reads.

    Raises:
        ImageError: If a TIFF file ends within its list of tags.
    """
    strip = _STRIP.get(file_format)
    return strip(data) if strip is not None else Bare(data, 1)


def _first_known(exif: list[int | None], xmp: list[int | None]) -> int:
    """Return the first orientation that makes sense, that of EXIF before that of XMP."""
    return next((one for one in [*exif, *xmp] if one is not None), 1)


def _without(data: bytes, dropped: list[tuple[int, int]]) -> bytes:
    """Return the data without these ranges, which are in order."""
    if not dropped:
        return data
    view, kept, begin = memoryview(data), [], 0
    for start, end in dropped:
        kept.append(view[begin:start])
        begin = end
    return b"".join([*kept, view[begin:]])


def _bare_jpeg(data: bytes) -> Bare:
    dropped, exif, xmp = [], [], []
    for start, end, marker in _jpeg_segments(data):
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE):  # neither application nor comment
            continue
        content = data[start + 4 : end]
        if marker == 0xE1 and content.startswith(b"Exif"):
            exif.append(exif_orientation(content))
        elif marker == 0xE1:
            xmp.append(xmp_orientation(content))
        # The decoder takes the meaning of the channels from these two.
        is_jfif = marker == 0xE0 and content.startswith(b"JFIF\0") and len(content) >= 14
        is_adobe = marker == 0xEE and content.startswith(b"Adobe") and len(content) >= 12
        if not (is_jfif or is_adobe):
            dropped.append((start, end))
    return Bare(_without(data, dropped), _first_known(exif, xmp))


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield start, end and marker of the segments of a JPEG before its compressed pixels."""
    at = data.find(b"\xff", 2)
    while 0 <= at < len(data) - 3:
        marker = data[at + 1]
        if marker in (0xD9, 0xDA):  # the end, and the start of the pixels
            return
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        has_length = marker > 0x01 and not 0xD0 <= marker <= 0xD8
        length = max(2, data[at + 2] << 8 | data[at + 3]) if has_length else 0
        end = at + 2 + length
        if end > len(data):
            return
        yield at, end, marker
        at = data.find(b"\xff", end)


def _bare_png(data: bytes) -> Bare:
    dropped, exif, xmp = [], [], []
    colour_type = data[25] if len(data) > 25 else 0
    for start, end, name in _png_chunks(data):
        if name in _PNG_CHUNKS or (name == b"tRNS" and _is_sound(data[start:end], colour_type)):
            continue
        dropped.append((start, end))
        content = data[start + 8 : end - 4]
        if name == b"eXIf":
            exif.append(exif_orientation(content))
        elif name in (b"iTXt", b"tEXt", b"zTXt"):
            key, text = _png_text(name, content)
            if key == b"Raw profile type exif":
                exif.append(exif_orientation(_from_hex(text)))
            elif key == b"XML:com.adobe.xmp":
                xmp.append(xmp_orientation(text))
    return Bare(_without(data, dropped), _first_known(exif, xmp))


def _png_chunks(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield start, end and name of the chunks of a PNG; the last one may end early."""
    at = 8
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        yield at, min(at + 12 + length, len(data)), name
        if name == b"IEND":
            return
        at += 12 + length


def _is_sound(transparency: bytes, colour_type: int) -> bool:
    """Return whether a tRNS chunk is whole and has the length that the pixels want."""
    length = len(transparency) - 12
    wanted = {0: length == 2, 2: length == 6, 3: length <= 256}
    crc = int.from_bytes(transparency[-4:])
    return wanted.get(colour_type, False) and zlib.crc32(transparency[4:-4]) == crc


def _png_text(name: bytes, content: bytes) -> tuple[bytes, bytes]:
    """Return key and text of a text chunk; an empty text if it is damaged."""
    key, _, rest = content.partition(b"\0")
    compressed = name == b"zTXt"
    if name == b"iTXt":
        compressed = rest[:1] == b"\1"
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]  # after two languages
    elif compressed:
        rest = rest[1:]
    if compressed:
        try:
            rest = zlib.decompressobj().decompress(rest, _MAX_TEXT_BYTES)
        except zlib.error:
            return key, b""
    return key, rest


def _from_hex(profile: bytes) -> bytes:
    """Return the bytes of a profile as ImageMagick writes it: name, length, digits."""
    digits = b"".join(profile.split(b"\n")[3:])
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return b""


def _bare_webp(data: bytes) -> Bare:
    view = memoryview(data)
    kept, exif, xmp, at = [], [], [], 12
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        end = min(at + 8 + length + length % 2, len(data))
        if name == b"EXIF":
            exif.append(exif_orientation(data[at + 8 : end]))
        elif name == b"XMP ":
            xmp.append(xmp_orientation(data[at + 8 : end]))
        elif name == b"VP8X":
            chunk = bytearray(view[at:end])
            chunk[8:9] = bytes(flags & ~_WEBP_METADATA for flags in chunk[8:9])
            kept.append(memoryview(chunk))
        elif name in _WEBP_CHUNKS:
            kept.append(view[at:end])
        at = end
    size = 4 + sum(map(len, kept))
    head = b"RIFF" + struct.pack("<I", size) + b"WEBP"
    return Bare(b"".join([head, *kept]), _first_known(exif, xmp))


def _bare_tiff(data: bytes) -> Bare:
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2] == 43  # BigTIFF, which Pillow knows with this order of bytes only
    number, entry = ("Q", "HHQ8s") if is_big else ("I", "HHI4s")
    count_format = order + ("Q" if is_big else "H")
    entry_size = struct.calcsize(order + entry)
    kept, orientations, xmp = [], [], b""
    try:
        (start,) = struct.unpack_from(order + number, data, 8 if is_big else 4)
        (count,) = struct.unpack_from(count_format, data, start)
        first = start + struct.calcsize(count_format)
        for at in range(first, first + count * entry_size, entry_size):
            tag, kind, n, value = struct.unpack_from(order + entry, data, at)
            size = n * _TIFF_SIZES.get(kind, 0)
            (offset,) = struct.unpack(order + number, value)
            if tag == ORIENTATION:
                orientations.append(tag_orientation(order, kind, n, value))
            elif tag == _TIFF_XMP:
                xmp = data[offset : offset + size]
            elif tag in _TIFF_TAGS and (size <= len(value) or offset + size <= len(data)):
                kept.append(data[at : at + entry_size])
    except struct.error as error:
        raise ImageError(
            "image cannot be decoded: got a TIFF file that ends within its list of tags; copy or "
            "download it again"
        ) from error
    table = struct.pack(count_format, len(kept)) + b"".join(kept) + bytes(struct.calcsize(number))
    bare = bytearray(data)
    bare[start : start + len(table)] = table
    return Bare(bytes(bare), _first_known(orientations, [xmp_orientation(xmp)]))


def _bare_avif(data: bytes) -> Bare:
    """Return the file with its EXIF data unlisted; the format turns pictures in another way."""
    at = data.find(b"iinf")
    if at < 4:
        return Bare(data, 1)
    end = at + max(0, int.from_bytes(data[at - 4 : at]) - 4)
    items = data[at:end].replace(b"Exif", b"skip")
    return Bare(data[:at] + items + data[end:], 1)


_STRIP: dict[Format, Callable[[bytes], Bare]] = {
    "JPEG": _bare_jpeg,
    "PNG": _bare_png,
    "WEBP": _bare_webp,
    "TIFF": _bare_tiff,
    "AVIF": _bare_avif,
}
