"""Pictures of a batch blended with each other: mixup and cutmix."""

import math

import numpy as np
import torch
from torch import Tensor

from vision.config import VisionConfig
from vision.training.losses import Mix


def mix_pictures(
    images: Tensor, config: VisionConfig, rng: np.random.Generator
) -> tuple[Tensor, Mix | None]:
    """Return the images blended with each other by mixup or cutmix, and how they were blended.

    Mixup (Zhang et al., 2018, https://arxiv.org/abs/1710.09412) and CutMix (Yun et al., 2019,
    https://arxiv.org/abs/1905.04899), with one share for the whole batch. If both are on, each is
    used for half of the batches, at random.

    Args:
        images: Square pictures (B, 3, H, W).
        config: Beta parameters of mixup and cutmix; 0 turns one off.
        rng: Random generator.
    """
    kinds = [name for name in ("mixup", "cutmix") if getattr(config, name) > 0]
    if not kinds:
        return images, None
    kind = kinds[int(rng.integers(len(kinds)))]
    alpha = getattr(config, kind)
    share = float(rng.beta(alpha, alpha))
    # The order of a batch is random, so its reverse pairs the pictures at random.
    partner = torch.arange(len(images) - 1, -1, -1, device=images.device)
    if kind == "mixup":
        return torch.lerp(images[partner], images, share), Mix(partner, share)
    side = images.shape[-1]
    cut = round(side * math.sqrt(1.0 - share))
    top, left = (int(start) for start in rng.integers(side - cut + 1, size=2))
    mixed = images.clone()
    window = (slice(None), slice(None), slice(top, top + cut), slice(left, left + cut))
    mixed[window] = images[partner][window]
    return mixed, Mix(partner, 1.0 - (cut / side) ** 2)
