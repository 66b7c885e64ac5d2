"""What the vision tower and the fusion make of photos that come without words."""

from collections.abc import Iterable

import torch
from torch import Tensor

from recsys.errors import InvalidImageError
from recsys.identification.evidence import Photos
from recsys.models.fusion import ItemFusion
from vision.batches import ImageSource, prepared_batches
from vision.images import ImageError
from vision.test_time import Views
from vision.tower import VisionTower

BATCH_SIZE = 64


def look(
    tower: VisionTower,
    images: Iterable[ImageSource],
    *,
    head: str | None,
    views: Views,
    device: str,
    progress: bool = False,
) -> Photos:
    """Return photos as the tower sees them, before any fusion: embeddings (B, D_m), logits (B, C).

    Args:
        tower: Moved to the device.
        images: Pictures, files' bytes or paths.
        head: Target whose logits are wanted; None gives none, C = 0.
        views: Views of each photo to average.
        device: Where to compute.
        progress: Show a bar.

    Raises:
        InvalidImageError: If one is no picture; gives its position.
    """
    tower = tower.to(device).eval()
    n_classes = len(tower.classes[head]) if head is not None else 0
    seen = [Photos(torch.zeros(0, tower.dim), torch.zeros(0, n_classes))]
    try:
        for batch in prepared_batches(
            images, tower.preprocess, batch_size=BATCH_SIZE, progress=progress
        ):
            with torch.inference_mode():
                output = tower.averaged(batch.to(device), views)
            logits = output.logits[head] if head is not None else batch.new_zeros(len(batch), 0)
            seen.append(Photos(output.embeddings.cpu(), logits.cpu()))
    except ImageError as error:
        raise InvalidImageError(str(error)) from error
    return Photos(*(torch.cat(parts) for parts in zip(*seen, strict=True)))


@torch.inference_mode()
def fuse_pictures(fusion: ItemFusion, pictures: Tensor) -> Tensor:
    """Return pictures (B, D) in the item space from the tower's embeddings (B, D_m), on CPU."""
    device = next(fusion.parameters()).device
    return fusion.encode({"image": pictures.to(device)}).cpu()
