"""Photos through the vision tower and the fusion, without any words."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import torch
from torch import Tensor

from recsys.errors import InvalidArgumentError, InvalidImageError
from recsys.identification.evidence import Photos
from recsys.models.fusion import ItemFusion
from vision.batches import ImageSource, open_picture, prepared_batches, read_batches
from vision.errors import InvalidArgumentError as NoListError
from vision.images import ImageError
from vision.palette import ColourShare, name_colours
from vision.squares import ReadSquare, read_square
from vision.test_time import Views, draw_views
from vision.tower import TowerOutput, VisionTower, average
from vision.transforms import build_reader, normalise
from vision.words import ReadLine, WordReader, shared_reader

BATCH_SIZE = 64


class TowerPhotos(NamedTuple):
    """Outputs of the vision tower for photos, before any fusion."""

    embeddings: Tensor  # (B, D_m)
    logits: Tensor  # (B, C) of the head whose classes are products; C is 0 without such a head
    features: Tensor  # (B, F) of the tower's backbone


class SeenPhotos(NamedTuple):
    """What the vision tower and the palette make of photos, each decoded once."""

    photos: TowerPhotos  # averaged over the views
    heads: dict[str, Tensor]  # target -> logits (B, C) of each photo as it is
    colours: list[list[ColourShare]]  # of each photo
    lines: list[tuple[ReadLine, ...]]  # of letters on each photo; no lines without a reader


def run_tower(
    tower: VisionTower,
    images: Iterable[ImageSource],
    *,
    head: str | None,
    views: Views,
    device: str,
    progress: bool = False,
    read: ReadSquare = read_square,
) -> TowerPhotos:
    """Return the tower's embeddings and logits of photos, averaged over views.

    Args:
        tower: Vision tower; it is moved to the device.
        images: Photos as paths, bytes of files or opened images.
        head: Target of the tower whose logits are returned; None for no logits.
        views: Views of each photo to average.
        device: Device to compute on.
        progress: Whether to show a progress bar.
        read: Reader of the photos that are paths.

    Raises:
        InvalidImageError: If a photo is not a readable image; the message has its index.
        InvalidArgumentError: If ``images`` is a single image.
    """
    tower = tower.to(device).eval()
    parts = [_no_photos(tower, head)]
    with _photo_errors():
        for batch in prepared_batches(
            images, tower.preprocess, batch_size=BATCH_SIZE, progress=progress, read=read
        ):
            with torch.inference_mode():
                output = tower.averaged(batch.to(device), views)
            parts.append(_photos_of(output, head))
    return _join(parts)


def see_photos(
    tower: VisionTower,
    images: Iterable[ImageSource],
    *,
    head: str | None = None,
    views: Views = "one",
    device: str,
    progress: bool = False,
    reader: WordReader | None = None,
) -> SeenPhotos:
    """Return what the tower, the palette and the reader of words make of photos.

    The first of the views is the photo as it is. Its pass gives the logits of all heads, so
    annotations of identified photos need no other.

    Args:
        tower: Vision tower; it is moved to the device.
        images: Photos as paths, bytes of files or opened images.
        head: As for ``run_tower``, like the arguments that follow.
        views: Views of each photo to average.
        device: Device to compute on.
        progress: Whether to show a progress bar.
        reader: Reader of words; None reads none.

    Raises:
        InvalidImageError: If a photo is not a readable image; the message has its index.
        InvalidArgumentError: If ``images`` is a single image.
    """
    tower, to_square = tower.to(device).eval(), build_reader(tower.preprocess)

    def look(image: ImageSource) -> tuple[Tensor, list[ColourShare], tuple[ReadLine, ...]]:
        picture = open_picture(image, tower.preprocess.size)
        # Words need more pixels than the tower, so that the reader decodes the photo again.
        lines = reader.read_lines(image) if reader is not None else ()
        return to_square(picture), name_colours(picture), lines

    photos = [_no_photos(tower, head)]
    heads = {name: [torch.zeros(0, len(names))] for name, names in tower.classes.items()}
    colours: list[list[ColourShare]] = []
    lines: list[tuple[ReadLine, ...]] = []
    with _photo_errors(), torch.inference_mode():
        for batch in read_batches(images, look, batch_size=BATCH_SIZE, progress=progress):
            squares = torch.stack([square for square, _, _ in batch]).to(device)
            pixels = normalise(squares, tower.preprocess)
            outputs = [tower.outputs(view) for view in draw_views(pixels, views)]
            photos.append(_photos_of(average(outputs), head))
            for name, logits in outputs[0].logits.items():
                heads[name].append(logits.cpu())
            colours += [named for _, named, _ in batch]
            lines += [read for _, _, read in batch]
    return SeenPhotos(
        _join(photos), {name: torch.cat(parts) for name, parts in heads.items()}, colours, lines
    )


def read_ahead(image: ImageSource) -> None:
    """Read the words on a photo, so that what reads them next need not wait.

    May be called from any thread. Does nothing without the extra ``ocr``, and for a photo that is
    not a readable image, which whatever comes next says.
    """
    reader = shared_reader()
    if reader is not None:
        with suppress(ImageError):
            reader.read(image)


def fuse_photos(fusion: ItemFusion, photos: TowerPhotos) -> Photos:
    """Return photos in the item space, on the CPU."""
    return Photos(fuse_images(fusion, photos.embeddings), photos.logits, photos.features)


@torch.inference_mode()
def fuse_images(fusion: ItemFusion, embeddings: Tensor) -> Tensor:
    """Return the tower's embeddings (B, D_m) of photos or pictures in the item space (B, D)."""
    device = next(fusion.parameters()).device
    return fusion.encode({"image": embeddings.to(device)}).cpu()


def _no_photos(tower: VisionTower, head: str | None) -> TowerPhotos:
    """Return what identification needs of no photo, in the shapes that photos have."""
    n_classes = len(tower.classes[head]) if head is not None else 0
    return TowerPhotos(
        torch.zeros(0, tower.dim), torch.zeros(0, n_classes), torch.zeros(0, tower.n_features)
    )


def _photos_of(output: TowerOutput, head: str | None) -> TowerPhotos:
    """Return what identification needs of an output of the tower, on the CPU."""
    embeddings = output.embeddings
    logits = output.logits[head] if head is not None else embeddings.new_zeros(len(embeddings), 0)
    return TowerPhotos(embeddings.cpu(), logits.cpu(), output.features.cpu())


def _join(parts: Iterable[TowerPhotos]) -> TowerPhotos:
    """Return the photos of several batches as one."""
    return TowerPhotos(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


@contextmanager
def _photo_errors() -> Iterator[None]:
    """Raise errors of the tower's package as those of this library."""
    try:
        yield
    except ImageError as error:
        raise InvalidImageError(str(error)) from error
    except NoListError as error:
        raise InvalidArgumentError(str(error)) from error
