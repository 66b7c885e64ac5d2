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


def bomb(width: int, height: int) -> bytes:
    """Return a PNG of some 50 bytes that claims any size."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


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
    }


def broken() -> dict[str, bytes]:
    """Return files that are no picture we accept, by file name."""
    whole = encode(_plain(), "JPEG")
    return {
        "truncated.jpg": whole[: len(whole) // 2],
        "empty.jpg": b"",
        "words.jpg": b"this is not a picture",
        "bomb.png": bomb(50_000, 50_000),
    }
