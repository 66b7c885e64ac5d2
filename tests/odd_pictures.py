"""Pictures as people really send them: odd ones that are read, and broken ones that are not."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def encode(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """Return the picture as a file's bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(name: bytes, body: bytes, crc: int | None = None) -> bytes:
    """Return a chunk of a PNG, with a checksum that may be wrong."""
    crc = zlib.crc32(name + body) if crc is None else crc
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)


def in_png(data: bytes, name: bytes, body: bytes, crc: int | None = None) -> bytes:
    """Return a PNG with one more chunk before its pixels."""
    at = data.index(b"IDAT") - 4
    return data[:at] + png_chunk(name, body, crc) + data[at:]


def in_jpeg(data: bytes, marker: int, body: bytes) -> bytes:
    """Return a JPEG with one more segment, at its beginning."""
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + data[2:]


def in_webp(data: bytes, name: bytes, body: bytes, length: int | None = None) -> bytes:
    """Return a WebP with one more chunk at its end, whose length may be wrong."""
    with Image.open(io.BytesIO(data)) as picture:
        sides = b"".join(struct.pack("<I", side - 1)[:3] for side in picture.size)
    chunk = name + struct.pack("<I", len(body) if length is None else length) + body
    content = b"WEBPVP8X" + struct.pack("<IB3x", 10, 0x2C) + sides + data[12:] + chunk
    return b"RIFF" + struct.pack("<I", len(content)) + content


def in_tiff(data: bytes, tag: int, kind: int, count: int, value: int) -> bytes:
    """Return a little-endian TIFF with one more tag, whose value may lie anywhere."""
    (start,) = struct.unpack_from("<I", data, 4)
    (n,) = struct.unpack_from("<H", data, start)
    tags = [data[start + 2 + 12 * k : start + 14 + 12 * k] for k in range(n)]
    tags.append(struct.pack("<HHII", tag, kind, count, value))
    tags.sort(key=lambda one: struct.unpack_from("<H", one))
    table = struct.pack("<H", len(tags)) + b"".join(tags) + bytes(4)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + table


def exif_block(
    value: int, *, tag: int = 0x0112, kind: int = 3, count: int = 1, n_tags: int = 1
) -> bytes:
    """Return EXIF data with one tag, by default a sound orientation."""
    fields = struct.pack(">HHIHHI", tag, kind, count, value, 0, 0)
    return b"Exif\0\0MM\0*" + struct.pack(">IH", 8, n_tags) + fields


def bomb(width: int, height: int) -> bytes:
    """Return a PNG of some 50 bytes that claims any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def _plain() -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    ).convert("RGB")


def readable() -> dict[str, bytes]:
    """Return odd pictures that are read all the same, by file name."""
    plain = _plain()
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = Image.fromarray(np.asarray(plain.convert("L")).astype(np.uint16) * 257)
    frames = [plain.quantize(16), plain.rotate(90).quantize(16)]
    return {
        "plain.jpg": encode(plain, "JPEG"),
        "a_png_called.jpg": encode(plain, "PNG"),
        "cmyk.jpg": encode(plain.convert("CMYK"), "JPEG"),
        "sixteen_bits.png": encode(deep, "PNG"),
        "palette.png": encode(plain.quantize(8), "PNG"),
        "animated.gif": encode(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "turned.jpg": encode(plain, "JPEG", exif=turned),
        "one_pixel.png": encode(plain.resize((1, 1)), "PNG"),
        "a_line.png": encode(plain.resize((900, 1)), "PNG"),
        "broken_exif.jpg": in_jpeg(encode(plain, "JPEG"), 0xE1, b"Exif\0\0" + b"garbage!" * 4),
        "broken_exif.png": in_png(encode(plain, "PNG"), b"eXIf", b"\0\x08\0\x02\x01\x12"),
        "without_its_end.jpg": encode(plain, "JPEG")[:-2],
        "an_avif_called.jpg": encode(plain, "AVIF"),
    }


def broken() -> dict[str, bytes]:
    """Return files that are no picture we accept, by file name."""
    whole = encode(_plain(), "JPEG")
    return {
        "truncated.jpg": whole[: len(whole) // 2],
        "empty.jpg": b"",
        "words.jpg": b"this is not a picture",
        "page.jpg": b"<!DOCTYPE html><title>404 Not Found</title>",
        "bomb.png": bomb(50_000, 50_000),
    }
