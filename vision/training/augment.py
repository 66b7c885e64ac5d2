"""Augmentation of whole batches: one affine resampling, one change of colours, one mask."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vision.training.presets import Augmentation
from vision.training.processes import WHOLE, Shard
from vision.transforms import Preprocess


def augment(
    pictures: Tensor,
    aspects: Tensor,
    augmentation: Augmentation,
    preprocess: Preprocess,
    *,
    size: int,
    generator: torch.Generator,
    shard: Shard = WHOLE,
) -> Tensor:
    """Return augmented, normalised pictures (B, 3, size, size), float32.

    The changes are those of torchvision's RandomResizedCrop, RandomHorizontalFlip, RandomRotation,
    ColorJitter and RandomErasing, drawn for each picture but applied to the whole batch: crop, flip
    and rotation are one resampling, and all changes of colour with the normalisation are one matrix
    for each picture. Colours are not clipped between the steps.

    Args:
        pictures: Stored pictures, uint8 (B, 3, H, W), stretched to one common shape.
        aspects: Width over height of each picture before it was stretched, float (B,).
        augmentation: Ranges to draw the changes from.
        preprocess: Mean and std to normalise with.
        size: Side of the result in pixels.
        generator: Random generator; one for each batch makes training resumable at any batch.
        shard: Place of these rows in a larger batch; they get the draws that they would get there.
    """
    draws = _Draws(len(pictures), generator, shard, pictures.device)
    boxes = _draw_affine(aspects, augmentation, draws)
    grid = F.affine_grid(boxes, [len(pictures), 3, size, size], align_corners=False)
    sampled = F.grid_sample(
        pictures.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    coloured = _recolour(sampled, augmentation, preprocess, draws)
    if augmentation.erase > 0:
        _erase(coloured, augmentation, draws)
    return coloured


class _Draws:
    """Random numbers for the rows of one batch."""

    def __init__(
        self, rows: int, generator: torch.Generator, shard: Shard, device: torch.device
    ) -> None:
        self.rows, self.generator, self.shard, self.device = rows, generator, shard, device

    def uniform(self, low: float, high: float) -> Tensor:
        """Return uniform numbers (B,), drawn on the generator's device: equal for all devices."""
        count = self.rows * self.shard.world_size
        draws = torch.rand(count, generator=self.generator, device=self.generator.device)
        return (low + (high - low) * draws[self.shard.rank :: self.shard.world_size]).to(
            self.device
        )


def _draw_affine(aspects: Tensor, augmentation: Augmentation, draws: _Draws) -> Tensor:
    """Return affine maps (B, 2, 3) from coordinates in the result to those in the picture."""
    draw = draws.uniform
    area = draw(*augmentation.crop_area)
    aspect = torch.exp(draw(-1.0, 1.0) * math.log(augmentation.crop_aspect))
    # Shares of a stretched picture's sides are shares of the original's sides, so that no pixel
    # size is needed. If a picture is too narrow for the box, the box takes its whole side.
    stretch = aspects if augmentation.crop_area[0] < 1 else torch.ones_like(aspects)
    width = torch.sqrt(area * aspect / stretch).clamp(max=1.0)
    height = torch.sqrt(area / aspect * stretch).clamp(max=1.0)
    centre_x = draw(-1.0, 1.0) * (1.0 - width)
    centre_y = draw(-1.0, 1.0) * (1.0 - height)
    flip = 1.0 - 2.0 * (draw(0.0, 1.0) < augmentation.flip).float()
    angle = torch.deg2rad(draw(-1.0, 1.0) * augmentation.rotation_deg)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = [width * cos * flip, -width * sin, centre_x, height * sin * flip, height * cos, centre_y]
    return torch.stack(rows, dim=1).view(-1, 2, 3)


def _recolour(
    pictures: Tensor,
    augmentation: Augmentation,
    preprocess: Preprocess,
    draws: _Draws,
) -> Tensor:
    """Return pictures (B, 3, H, W), whose values are 0 to 255, recoloured and normalised."""
    device = pictures.device

    def draw(spread: float) -> Tensor:
        return draws.uniform(1.0 - spread, 1.0 + spread)[:, None, None]

    brightness, contrast = draw(augmentation.brightness), draw(augmentation.contrast)
    saturation = draw(augmentation.saturation)
    hue = (draw(1.0) - 1.0) * math.radians(augmentation.hue_deg)
    greyed = draws.uniform(0.0, 1.0) < augmentation.grey
    saturation = saturation.masked_fill(greyed[:, None, None], 0.0)

    luma = torch.tensor([0.299, 0.587, 0.114], device=device)
    to_grey = luma.expand(3, 3)
    eye = torch.eye(3, device=device)
    # Rodrigues' rotation about the grey axis (1, 1, 1) / sqrt(3).
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], device=device)
    rotate = eye * torch.cos(hue) + (1 - torch.cos(hue)) / 3 + cross * torch.sin(hue) / math.sqrt(3)
    saturate = to_grey + saturation * (eye - to_grey)  # (B, 3, 3)

    mean = torch.tensor(preprocess.mean, device=device)[:, None]
    std = torch.tensor(preprocess.std, device=device)[:, None]
    pixels = pictures.flatten(2)  # (B, 3, HW)
    mean_grey = (luma @ pixels.mean(dim=2).T)[:, None, None] / 255.0
    matrix = brightness * contrast * (saturate @ rotate) / (255.0 * std)
    offset = ((1.0 - contrast) * brightness * mean_grey - mean) / std
    return torch.baddbmm(offset, matrix, pixels).view(pictures.shape)


def _erase(pictures: Tensor, augmentation: Augmentation, draws: _Draws) -> None:
    """Blank one rectangle in some pictures in place, with the mean colour (0 when normalised)."""
    area = draws.uniform(*augmentation.erase_area)
    aspect = torch.exp(draws.uniform(-1.0, 1.0))
    chosen = draws.uniform(0.0, 1.0) < augmentation.erase
    inside = chosen[:, None, None].expand(-1, *pictures.shape[2:])
    for axis, share in ((1, torch.sqrt(area / aspect)), (2, torch.sqrt(area * aspect))):
        side = pictures.shape[axis + 1]
        start = draws.uniform(0.0, 1.0) * (1.0 - share)
        position = (torch.arange(side, device=pictures.device) + 0.5) / side
        within = (position >= start[:, None]) & (position < (start + share)[:, None])
        inside = inside & within.unsqueeze(3 - axis)
    pictures.masked_fill_(inside[:, None], 0.0)
