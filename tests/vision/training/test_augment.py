"""What augmentation may change, and how far, read back from pictures whose pixels say where."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from vision.training.augment import augment
from vision.training.presets import PRESETS, Augmentation, get_augmentation
from vision.training.processes import WHOLE, Shard
from vision.transforms import Preprocess, normalise

SIDE = 64
# Normalisation that leaves values at 0..1, so that they can be read.
PLAIN = Preprocess(size=SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def run(
    pictures: Tensor,
    augmentation: Augmentation,
    *,
    aspect: float = 1.0,
    seed: int = 0,
    size: int = SIDE,
    preprocess: Preprocess = PLAIN,
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    aspects = torch.full((len(pictures),), aspect)
    return augment(pictures, aspects, augmentation, preprocess, size=size, generator=generator)


def ramps(count: int) -> Tensor:
    """Pictures whose red is the column and whose green is the row, uint8 (B, 3, H, W)."""
    ramp = (torch.arange(SIDE) * 4).to(torch.uint8)
    columns, rows = ramp.expand(SIDE, SIDE), ramp[:, None].expand(SIDE, SIDE)
    picture = torch.stack([columns, rows, torch.full_like(columns, 128)])
    return picture.expand(count, 3, SIDE, SIDE).contiguous()


def noise(count: int, low: int = 60, high: int = 140) -> Tensor:
    pixels = np.random.default_rng(0).integers(low, high, (count, 3, SIDE, SIDE), dtype=np.uint8)
    return torch.from_numpy(pixels)


def test_no_augmentation_only_normalises() -> None:
    preprocess = Preprocess(size=SIDE)
    pictures = noise(4, 0, 255)
    got = run(pictures, PRESETS["none"], preprocess=preprocess)
    torch.testing.assert_close(got, normalise(pictures, preprocess), atol=1e-4, rtol=1e-4)


def test_no_augmentation_leaves_the_shape_of_a_picture_alone() -> None:
    pictures = noise(4)
    torch.testing.assert_close(
        run(pictures, PRESETS["none"], aspect=3.0), run(pictures, PRESETS["none"], aspect=1.0)
    )


def test_a_flip_swaps_left_and_right() -> None:
    pictures = noise(4)
    got = run(pictures, Augmentation(flip=1.0))
    torch.testing.assert_close(got, pictures.flip(-1) / 255, atol=1e-4, rtol=1e-4)
    half = run(ramps(400), Augmentation(flip=0.5))[:, 0, 0]
    flipped = (half[:, 0] > half[:, -1]).float().mean()
    assert 0.4 < flipped < 0.6


@pytest.mark.parametrize("aspect", [0.5, 1.0, 2.0])
def test_crops_have_the_drawn_area_and_shape_in_the_original_picture(aspect: float) -> None:
    got = run(ramps(500), Augmentation(crop_area=(0.2, 0.4), crop_aspect=1.25), aspect=aspect)
    columns, rows = got[:, 0, SIDE // 2], got[:, 1, :, SIDE // 2]
    # Red and green grow by 4 / 255 a stored pixel.
    steps = (SIDE - 1) * 4 / 255
    widths = (columns[:, -1] - columns[:, 0]) / steps
    heights = (rows[:, -1] - rows[:, 0]) / steps
    area = widths * heights
    shape = widths / heights * aspect
    assert 0.19 < area.min() < 0.22
    assert 0.38 < area.max() < 0.41
    assert 1 / 1.27 < shape.min() < 0.85
    assert 1.18 < shape.max() < 1.27
    assert columns.min() < 0.05, "some crop reaches the left edge"
    assert columns.max() > 0.93, "some crop reaches the right edge"


def test_rotation_turns_about_the_middle_up_to_the_largest_angle() -> None:
    got = run(ramps(300), Augmentation(rotation_deg=20.0))
    middle = slice(SIDE // 4, 3 * SIDE // 4)
    across = got[:, 0, SIDE // 2, middle]
    down = got[:, 0, middle, SIDE // 2]
    angles = torch.rad2deg(torch.atan2(down[:, -1] - down[:, 0], across[:, -1] - across[:, 0]))
    assert -20.5 < angles.min() < -17
    assert 17 < angles.max() < 20.5
    centre = got[:, 0, SIDE // 2 - 1 : SIDE // 2 + 1, SIDE // 2 - 1 : SIDE // 2 + 1].mean((1, 2))
    torch.testing.assert_close(centre, torch.full_like(centre, 126 / 255), atol=1e-3, rtol=0)


def test_brightness_multiplies_each_picture_by_its_own_factor() -> None:
    pictures = noise(200)
    factors = run(pictures, Augmentation(brightness=0.3)) / (pictures / 255)
    per_picture = factors.mean((1, 2, 3))
    assert (factors - per_picture[:, None, None, None]).abs().max() < 1e-3
    assert 0.7 <= per_picture.min() < 0.75
    assert 1.25 < per_picture.max() <= 1.3


def test_contrast_keeps_the_mean_grey() -> None:
    pictures = noise(50)
    got = run(pictures, Augmentation(contrast=0.5))
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    before, after = (pictures / 255 * luma).sum(1), (got * luma).sum(1)
    torch.testing.assert_close(after.mean((1, 2)), before.mean((1, 2)), atol=1e-4, rtol=0)
    ratio = after.std((1, 2)) / before.std((1, 2))
    assert ratio.min() < 0.7
    assert ratio.max() > 1.3


def test_saturation_keeps_the_grey_of_every_pixel_and_greying_drops_the_rest() -> None:
    pictures = noise(50)
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    got = run(pictures, Augmentation(saturation=0.8))
    torch.testing.assert_close(
        (got * luma).sum(1), (pictures / 255 * luma).sum(1), atol=1e-4, rtol=0
    )
    grey = run(pictures, Augmentation(grey=1.0))
    torch.testing.assert_close(grey[:, 0], grey[:, 2], atol=1e-4, rtol=0)


def test_hue_keeps_the_mean_and_spread_of_the_three_colours() -> None:
    pictures = noise(50)
    got = run(pictures, Augmentation(hue_deg=40.0))
    torch.testing.assert_close(got.mean(1), (pictures / 255).mean(1), atol=1e-4, rtol=0)
    torch.testing.assert_close(got.std(1), (pictures / 255).std(1), atol=1e-4, rtol=0)
    before, after = pictures / 255 - (pictures / 255).mean(1, True), got - got.mean(1, True)
    cosine = (before * after).sum(1) / (before.norm(dim=1) * after.norm(dim=1)).clamp(min=1e-6)
    angles = torch.rad2deg(torch.acos(cosine.clamp(-1, 1))).flatten(1).median(1).values
    assert 35 < angles.max() < 40.5


def test_erasing_blanks_one_rectangle_of_the_drawn_area() -> None:
    preprocess = Preprocess(size=SIDE, mean=(0.1, 0.1, 0.1), std=(1.0, 1.0, 1.0))
    augmentation = Augmentation(erase=0.5, erase_area=(0.1, 0.2))
    blank = run(noise(400), augmentation, preprocess=preprocess).abs().amax(1) == 0
    share = blank.float().mean((1, 2))
    touched = share > 0
    assert 0.4 < touched.float().mean() < 0.6
    assert share[touched].min() > 0.08
    assert share[touched].max() < 0.23
    # A rectangle is the product of the rows and the columns that it touches.
    box = blank.any(2).sum(1) * blank.any(1).sum(1)
    torch.testing.assert_close(box[touched], blank.sum((1, 2))[touched])


def test_the_same_generator_gives_the_same_pictures() -> None:
    pictures = noise(6)
    first, again, other = (run(pictures, PRESETS["strong"], seed=seed) for seed in (1, 1, 2))
    torch.testing.assert_close(first, again, atol=0, rtol=0)
    assert (first - other).abs().mean() > 0.01


def test_pictures_of_one_batch_change_differently() -> None:
    got = run(noise(1).expand(8, -1, -1, -1).contiguous(), PRESETS["photo"])
    distances = torch.pdist(got.flatten(1))
    assert distances.min() > 1.0


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_gives_the_chosen_size_and_finite_values(preset: str) -> None:
    got = run(noise(8, 0, 255), PRESETS[preset], aspect=0.1, size=48)
    assert got.shape == (8, 3, 48, 48)
    assert torch.isfinite(got).all()


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="one of none, light, photo, strong, views, got 'wild'"):
        get_augmentation("wild")
    with pytest.raises(ValidationError, match="crop_area"):
        Augmentation(crop_area=(0.0, 1.0))


def test_a_process_draws_for_its_rows_what_one_process_would() -> None:
    pictures = torch.randint(0, 256, (6, 3, 40, 40), dtype=torch.uint8)
    aspects = torch.linspace(0.5, 2.0, 6)

    def changed(rows: slice, shard: Shard) -> torch.Tensor:
        return augment(
            pictures[rows],
            aspects[rows],
            get_augmentation("strong"),
            Preprocess(size=32),
            size=32,
            generator=torch.Generator().manual_seed(3),
            shard=shard,
        )

    whole = changed(slice(None), WHOLE)
    for rank in range(2):
        torch.testing.assert_close(changed(slice(rank, None, 2), Shard(rank, 2)), whole[rank::2])
