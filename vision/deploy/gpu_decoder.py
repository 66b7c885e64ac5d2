"""JPEG files decoded and resized by a GPU, and everything else by the CPU."""

import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import JpegImagePlugin
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from vision.batches import open_picture
from vision.errors import ImageError
from vision.images import MAX_BYTES, MAX_PIXELS
from vision.metadata import strip_metadata
from vision.transforms import Preprocess, build_reader, build_resize

# Filters that torchvision applies to tensors in the same way as Pillow does to images.
TENSOR_FILTERS = ("bilinear", "bicubic")
# Resizing needs float32, and a whole batch of phone photos at once would not fit a GPU.
MAX_DECODED_PIXELS = 64_000_000


class Picture(NamedTuple):
    """A file in memory: a JPEG for the GPU, or pixels that the CPU decoded."""

    position: int
    path: Path
    content: Tensor  # a whole JPEG, uint8 (n,), or resized pixels, uint8 (3, H, W)
    area: int  # width times height of a JPEG, 0 for pixels


class GpuDecoder:
    """Decodes and resizes JPEGs on a GPU, and counts the pictures left to the CPU.

    Args:
        preprocess: Size, fit and filter of the resized pictures.
        device: CUDA device. Tests use the CPU, for which torchvision has the same decoder.
        rows: Number of rows in every batch.
        max_pixels: Largest number of pixels that are decoded at full size at a time.

    Attributes:
        unsuited: Number of pictures that the CPU decoded because their format is not for the GPU.
        refused: Number of pictures that the CPU decoded because the GPU could not.
        reason: Error message of the last refusal.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        device: torch.device,
        rows: int,
        *,
        max_pixels: int = MAX_DECODED_PIXELS,
    ) -> None:
        self.preprocess, self.device, self.rows = preprocess, device, rows
        self.max_pixels = max_pixels
        self.resize = build_resize(preprocess)
        # Decoding has a stream of its own, so that it does not wait for the network.
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.unsuited, self.refused, self.reason = 0, 0, ""

    def read(self, position: int, path: Path) -> Picture:
        """Return a JPEG for the GPU, or the pixels of a file that the CPU had to decode.

        Raises:
            ImageError: If the file cannot be read. The message has its position.
        """
        suits = self.preprocess.interpolation in TENSOR_FILTERS
        jpeg = read_plain_jpeg(path) if suits else None
        if jpeg is None:
            return Picture(position, path, self._decode_on_cpu(position, path), 0)
        return Picture(position, path, *jpeg)

    def decode(self, pictures: Sequence[Picture]) -> Tensor:
        """Return pictures at the size of the tower, uint8 (rows, 3, H, W), on the device.

        Args:
            pictures: At most ``rows`` pictures. Rows beyond them are black.

        Raises:
            ImageError: If neither GPU nor CPU can decode a file. The message has its position.
        """
        side = self.preprocess.size
        with torch.cuda.stream(self.stream):
            pixels = torch.zeros((self.rows, 3, side, side), dtype=torch.uint8, device=self.device)
            for row, picture in enumerate(pictures):
                if picture.area == 0:
                    self.unsuited += 1
                    pixels[row] = picture.content
            for rows in batches_by_pixels(pictures, self.max_pixels):
                self._fill(pixels, rows, pictures)
            self._wait()
        return pixels

    def _fill(self, pixels: Tensor, rows: Sequence[int], pictures: Sequence[Picture]) -> None:
        """Decode the JPEGs of these rows into ``pixels``."""
        decoded = self._decode_jpegs([pictures[row].content for row in rows])
        by_shape: dict[torch.Size, dict[int, Tensor]] = defaultdict(dict)
        for row, picture in zip(rows, decoded, strict=True):
            if picture is None:
                self.refused += 1
                pixels[row] = self._decode_on_cpu(pictures[row].position, pictures[row].path)
            else:
                by_shape[picture.shape][row] = picture
        for same_shape in by_shape.values():
            pixels[[*same_shape]] = self.resize(torch.stack([*same_shape.values()]))
        # nvJPEG writes on a stream of its own, which could reuse memory that is still being read.
        self._wait()

    def _decode_jpegs(self, jpegs: list[Tensor]) -> list[Tensor | None]:
        """Return pixels, uint8 (3, h, w), or None for a JPEG that the decoder refuses."""
        try:
            pictures: list[Tensor | None] = decode_jpeg(
                jpegs, mode=ImageReadMode.RGB, device=self.device
            )
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            # One refused JPEG makes the whole call fail, so each is tried alone.
            if len(jpegs) > 1:
                return [picture for jpeg in jpegs for picture in self._decode_jpegs([jpeg])]
            self.reason = str(error)
            return [None]
        return pictures

    def _decode_on_cpu(self, position: int, path: Path) -> Tensor:
        """Return resized pixels, uint8 (3, H, W), by the same code as ``VisionTower.embed``."""
        try:
            return build_reader(self.preprocess)(open_picture(path, self.preprocess.size))
        except ImageError as error:
            raise ImageError(f"image {position}: {error}", position) from error

    def _wait(self) -> None:
        if self.stream is not None:
            self.stream.synchronize()


def batches_by_pixels(pictures: Sequence[Picture], max_pixels: int) -> Iterator[list[int]]:
    """Yield the rows of JPEGs in groups that have at most ``max_pixels`` pixels when decoded.

    A JPEG with more pixels than that is a group of its own.

    Args:
        pictures: JPEGs and decoded pixels. The rows of the latter are left out.
        max_pixels: Largest number of pixels in a group.
    """
    rows: list[int] = []
    area = 0
    for row, picture in enumerate(pictures):
        if picture.area == 0:
            continue
        if rows and area + picture.area > max_pixels:
            yield rows
            rows, area = [], 0
        rows.append(row)
        area += picture.area
    if rows:
        yield rows


def read_plain_jpeg(path: Path, *, max_pixels: int = MAX_PIXELS) -> tuple[Tensor, int] | None:
    """Return a JPEG and its width times height, or None if ``vision.images`` has to decode it.

    The JPEG comes without its metadata. None stands for every file that ``vision.images`` refuses,
    and for JPEGs that a GPU decodes to another picture: greyscale, CMYK, Adobe RGB, rotated by
    EXIF, several in one file, or truncated.

    Args:
        path: File in any format.
        max_pixels: Largest width times height accepted.
    """
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            return None
        data, orientation = strip_metadata(path.read_bytes(), "JPEG")
        with JpegImagePlugin.JpegImageFile(io.BytesIO(data)) as header:
            area = header.width * header.height
            plain = (
                header.mode == "RGB"
                and header.info.get("adobe_transform", 1) == 1
                and orientation == 1
                and area <= max_pixels
                and data.find(b"\xff\xd9") == len(data) - 2  # where the first picture ends
            )
    # Damaged headers raise a dozen unrelated types; vision.images then reports what is wrong.
    except Exception:
        return None
    return (torch.frombuffer(bytearray(data), dtype=torch.uint8), area) if plain else None
