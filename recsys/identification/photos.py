"""Photos through the vision tower and the fusion, without any words."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from recsys.errors import InvalidArgumentError, InvalidImageError
from recsys.identification.evidence import Photos
from recsys.models.fusion import ItemFusion
from vision.batches import ImageSource, prepared_batches
from vision.errors import InvalidArgumentError as NoListError
from vision.images import ImageError
from vision.squares import ReadSquare, read_square
from vision.test_time import Views
from vision.tower import VisionTower

BATCH_SIZE = 64


class TowerPhotos(NamedTuple):
    """Outputs of the vision tower for photos, before any fusion."""

    embeddings: Tensor  # (B, D_m)
    logits: Tensor  # (B, C) of the head whose classes are products; C is 0 without such a head


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
    n_classes = len(tower.classes[head]) if head is not None else 0
    parts = [TowerPhotos(torch.zeros(0, tower.dim), torch.zeros(0, n_classes))]
    try:
        for batch in prepared_batches(
            images, tower.preprocess, batch_size=BATCH_SIZE, progress=progress, read=read
        ):
            with torch.inference_mode():
                output = tower.averaged(batch.to(device), views)
            logits = output.logits[head] if head is not None else batch.new_zeros(len(batch), 0)
            parts.append(TowerPhotos(output.embeddings.cpu(), logits.cpu()))
    except ImageError as error:
        raise InvalidImageError(str(error)) from error
    except NoListError as error:
        raise InvalidArgumentError(str(error)) from error
    return TowerPhotos(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def fuse_photos(fusion: ItemFusion, photos: TowerPhotos) -> Photos:
    """Return photos in the item space, on the CPU."""
    return Photos(fuse_images(fusion, photos.embeddings), photos.logits)


@torch.inference_mode()
def fuse_images(fusion: ItemFusion, embeddings: Tensor) -> Tensor:
    """Return the tower's embeddings (B, D_m) of photos or pictures in the item space (B, D)."""
    device = next(fusion.parameters()).device
    return fusion.encode({"image": embeddings.to(device)}).cpu()
