"""A picture becomes the tensor that a tower was trained on."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch.utils._python_dispatch import TorchDispatchMode

from vision.transforms import TALL, Preprocess, build_eval_transform, build_reader, normalise


def halves(width: int, height: int) -> Image.Image:
    """Return a picture with a black left half and a white right half."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:, width // 2 :] = 255
    return Image.fromarray(pixels)


def noise(height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_eval_transform_scales_then_normalises() -> None:
    preprocess = Preprocess(size=8, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
    image = build_eval_transform(preprocess)(halves(8, 8))
    assert image.shape == (3, 8, 8)
    assert image.dtype == torch.float32
    torch.testing.assert_close(image[:, 0, 0], torch.tensor([-1.0, -1.0, 0.0]))
    torch.testing.assert_close(image[:, 0, 7], torch.tensor([1.0, 3.0, 0.5]))


def test_normalise_is_the_batched_form_of_the_eval_transform() -> None:
    preprocess = Preprocess(size=16)
    batch = build_reader(preprocess)(noise(24, 32))[None]
    torch.testing.assert_close(
        normalise(batch, preprocess)[0], build_eval_transform(preprocess)(noise(24, 32))
    )


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_pixels_differ_from_those_of_pillow_by_at_most_one_level(interpolation: str) -> None:
    preprocess = Preprocess.model_validate({"size": 20, "interpolation": interpolation})
    pixels = build_reader(preprocess)(noise(48, 64)).permute(1, 2, 0).numpy().astype(int)
    filters = Image.Resampling[interpolation.upper()]
    wanted = np.asarray(noise(48, 64).resize((20, 20), filters)).astype(int)
    assert np.abs(pixels - wanted).max() <= 1


def test_stretch_keeps_all_of_a_wide_picture_and_crop_keeps_its_centre() -> None:
    wide = halves(64, 16)
    wide.paste((255, 0, 0), (0, 0, 8, 16))
    stretched = build_reader(Preprocess(size=16, fit="stretch"))(wide)
    cropped = build_reader(Preprocess(size=16, fit="crop"))(wide)
    assert stretched.shape == cropped.shape == (3, 16, 16)
    assert stretched[:, 8, 0].tolist() == [255, 0, 0]
    assert cropped[:, 8, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("turned", [False, True])
def test_cropping_equals_resizing_and_cutting_out_the_centre(
    interpolation: str, turned: bool
) -> None:
    picture = noise(40, 120).rotate(90 * turned, expand=True)
    preprocess = Preprocess.model_validate(
        {"size": 20, "fit": "crop", "interpolation": interpolation}
    )
    pixels = build_reader(preprocess)(picture).numpy().astype(int)
    whole = picture.resize(
        (20, 60) if turned else (60, 20), Image.Resampling[interpolation.upper()]
    )
    box = (0, 20, 20, 40) if turned else (20, 0, 40, 20)
    wanted = np.asarray(whole.crop(box)).astype(int).transpose(2, 0, 1)
    # At the two cut edges the filter does not see the pixels beyond them.
    inner = (slice(None), slice(5, -5), slice(None)) if turned else (..., slice(5, -5))
    assert np.abs(pixels - wanted)[inner].max() <= 2


class Largest(TorchDispatchMode):
    """Records the size of the largest tensor made while it is active.

    Resizing makes a hidden tensor with the width of its result and the height of its input, which
    is counted, too.
    """

    count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.count = max(self.count, made.numel())
            if "upsample" in str(func):
                between = made.numel() // made.shape[-2] * args[0].shape[-2]
                self.count = max(self.count, between)
        return made


@pytest.mark.parametrize("size", [(1, 3_000), (3_000, 1)])
def test_cropping_a_line_makes_no_tensor_larger_than_the_result(size: tuple[int, int]) -> None:
    read = build_reader(Preprocess(size=64, fit="crop"))
    with Largest() as largest:
        assert read(Image.new("RGB", size)).shape == (3, 64, 64)
    assert largest.count == 3 * 64 * 64


@pytest.mark.parametrize("size", [(1, 30_000), (30_000, 1), (63, 5_000)])
def test_stretching_a_line_makes_no_wide_copy_of_its_height(size: tuple[int, int]) -> None:
    read = build_reader(Preprocess(size=64))
    picture = noise(size[1], size[0])
    with Largest() as largest:
        pixels = read(picture)
    assert largest.count <= max(3 * size[0] * size[1], 3 * 64 * 64 * TALL)
    wanted = np.asarray(picture.resize((64, 64), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(pixels.permute(1, 2, 0).numpy() - wanted).max() <= 3


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1)])
def test_pictures_of_extreme_shapes_become_squares(size: tuple[int, int]) -> None:
    for fit in ("stretch", "crop"):
        pixels = build_reader(Preprocess(size=16, fit=fit))(Image.new("RGB", size))
        assert pixels.shape == (3, 16, 16)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="interpolation"):
        Preprocess(size=16, interpolation="magic")
    with pytest.raises(ValidationError, match="Extra inputs"):
        Preprocess.model_validate({"size": 16, "colour": "grey"})
