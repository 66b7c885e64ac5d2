"""How a picture lies, as its metadata say: 1 is upright, 2 to 8 are turned or mirrored."""

import re
import struct

ORIENTATION = 0x0112  # number of the tag, in EXIF and in TIFF
_NUMBERS = {1: "B", 3: "H", 4: "I"}  # types of a tag: byte, short and long


def exif_orientation(exif: bytes) -> int | None:
    """Return the orientation in a block of EXIF data; None without one that makes sense."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, n, value = struct.unpack_from(order + "HHI4s", tiff, at)
            if tag == ORIENTATION:
                return tag_orientation(order, kind, n, value)
    except struct.error:  # the data ends before what it announces
        return None
    return None


def tag_orientation(order: str, kind: int, count: int, value: bytes) -> int | None:
    """Return the orientation in a tag; None if it makes no sense.

    Args:
        order: Order of the bytes, "<" or ">".
        kind: Type of the value, as TIFF numbers them.
        count: Number of values.
        value: Field of the tag that holds the value.
    """
    if kind not in _NUMBERS or count != 1:
        return None
    (orientation,) = struct.unpack_from(order + _NUMBERS[kind], value)
    return int(orientation) if 1 <= orientation <= 8 else None


def xmp_orientation(xmp: bytes) -> int | None:
    """Return the orientation in XMP data; None without one that makes sense."""
    found = re.search(rb'tiff:Orientation(?:="|>)([1-8])', xmp)
    return int(found[1]) if found else None
