"""A contact sheet of augmented pictures, as training sees them."""

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms import v2
from torchvision.utils import make_grid

from vision.config import VisionConfig
from vision.dataset import Samples, decode_samples
from vision.errors import InvalidArgumentError
from vision.squares import stored_preprocess
from vision.training.augment import augment
from vision.training.policies import apply_policy
from vision.training.presets import get_augmentation
from vision.transforms import Preprocess

GAP = 2
HEADER = 20


def contact_sheet(
    samples: Samples, config: VisionConfig, *, rows: int = 8, columns: int = 8, seed: int = 0
) -> Image.Image:
    """Return a sheet of random pictures: on the left as stored, then augmented at random.

    Each picture is a row, at the size of the last epoch. Mixup, cutmix and adversarial changes are
    left out.

    Args:
        samples: Pictures to choose from; those that cannot be read are left out of the sheet.
        config: Size, preset and policy.
        rows: Maximum number of pictures.
        columns: Number of columns, including the stored pictures.
        seed: Random seed of the choice and of the augmentation.

    Raises:
        InvalidArgumentError: If ``rows`` is below 1 or ``columns`` below 2.
        TrainingError: If none of the chosen pictures can be read.
    """
    if rows < 1 or columns < 2:
        raise InvalidArgumentError(
            f"rows must be at least 1 and columns 2, got {rows} and {columns}"
        )
    size = config.train_size or config.size
    chosen = np.random.default_rng(seed).permutation(len(samples))[:rows]
    stored = stored_preprocess(Preprocess(size=size), size)
    pictures = decode_samples(samples.take(chosen), stored, spill=None, progress=False)
    batch = pictures.__getitems__(list(range(len(pictures))))
    seen = _seen(
        batch.pictures.repeat_interleave(columns - 1, dim=0),
        batch.aspects.repeat_interleave(columns - 1),
        config,
        size,
        torch.Generator().manual_seed(seed),
    )
    left = v2.functional.resize(batch.pictures, [size, size], antialias=True)
    tiles = torch.cat([left[:, None], seen.unflatten(0, (-1, columns - 1))], dim=1)
    grid = make_grid(tiles.flatten(0, 1), nrow=columns, padding=GAP, pad_value=255)
    policy = "" if config.policy == "none" else f" after {config.policy}"
    return _under(
        f"{config.augmentation}{policy}, {size} x {size} pixels; stored pictures on the left", grid
    )


def _seen(
    pictures: Tensor, aspects: Tensor, config: VisionConfig, size: int, generator: torch.Generator
) -> Tensor:
    """Return stored pictures as the network sees them, uint8 (B, 3, size, size)."""
    # Any mean and std will do: the normalisation is undone below.
    preprocess = Preprocess(size=size)
    changed = augment(
        apply_policy(pictures, config.policy, generator=generator),
        aspects,
        get_augmentation(config.augmentation),
        preprocess,
        size=size,
        generator=generator,
    )
    mean, std = (torch.tensor(of).view(3, 1, 1) for of in (preprocess.mean, preprocess.std))
    return ((changed * std + mean) * 255.0).round().clamp(0, 255).to(torch.uint8)


def _under(header: str, grid: Tensor) -> Image.Image:
    """Return the picture of a grid, uint8 (3, H, W), with a line of text above."""
    picture = Image.fromarray(grid.permute(1, 2, 0).numpy())
    sheet = Image.new("RGB", (picture.width, picture.height + HEADER), "white")
    sheet.paste(picture, (0, HEADER))
    ImageDraw.Draw(sheet).text((GAP, GAP), header, fill="black", font_size=HEADER - 4 * GAP)
    return sheet
