"""RandAugment and TrivialAugment on single pictures, before the augmentation of the batch."""

from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from vision.training.processes import WHOLE, Shard

Policy = Literal["none", "randaugment", "trivialaugment"]

_SMOOTH = InterpolationMode.BILINEAR
_POLICIES = {
    "randaugment": v2.RandAugment(interpolation=_SMOOTH),
    "trivialaugment": v2.TrivialAugmentWide(interpolation=_SMOOTH),
}


def apply_policy(
    pictures: Tensor, policy: Policy, *, generator: torch.Generator, shard: Shard = WHOLE
) -> Tensor:
    """Return the pictures, uint8 (B, 3, H, W), each changed at random.

    RandAugment (Cubuk et al., 2020, https://arxiv.org/abs/1909.13719) with torchvision's defaults,
    or TrivialAugment (Müller and Hutter, 2021, https://arxiv.org/abs/2103.10158) in its wide space.

    Args:
        pictures: Stored pictures, uint8 (B, 3, H, W).
        policy: Name of the policy; "none" returns the pictures as they are.
        generator: Random generator of the changes.
        shard: Place of these rows in a larger batch; they get the draws that they would get there.
    """
    if policy == "none":
        return pictures
    seeds = torch.randint(2**62, (len(pictures) * shard.world_size,), generator=generator)
    changed = []
    # torchvision draws from torch's global generator, whose state is restored afterwards.
    with torch.random.fork_rng(devices=[]):
        for picture, seed in zip(
            pictures, seeds[shard.rank :: shard.world_size].tolist(), strict=True
        ):
            torch.default_generator.manual_seed(seed)
            changed.append(_POLICIES[policy](picture))
    return torch.stack(changed)
