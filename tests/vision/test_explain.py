"""The heat of a class is where its colour is, for every method and every kind of network."""

import io
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from PIL import Image
from torch import Tensor, nn

from vision.arrays import Floats
from vision.explain import Method, Perturbation, explain, overlay
from vision.images import ImageError
from vision.networks.backbones import Backbone, BackboneSpec, build_backbone
from vision.networks.feature_maps import record_maps
from vision.tower import VisionTower
from vision.transforms import Preprocess, normalise, to_pixels

SIDE = 32
METHODS: tuple[Method, ...] = ("grad_cam", "lime", "shap")
QUADRANTS = {"red": (slice(0, 16), slice(0, 16)), "blue": (slice(0, 16), slice(16, 32))}


class Tokens(nn.Module):
    """Returns a class token that averages the patches, as the only feature of a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Flatten(start_dim=2), nn.Identity()
        self.gather = nn.Identity()

    def forward(self, values: Tensor) -> Tensor:
        """Return the class token (B, C) of a map (B, C, h, w)."""
        patches = self.gather(self.patches(values).transpose(1, 2))
        tokens = torch.cat([patches.mean(dim=1, keepdim=True), patches], dim=1)
        read: Tensor = self.norm(tokens)[:, 0]
        return read


class Above(nn.Module):
    """Subtracts a threshold, below which values become 0; grey is neither red nor blue."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, values: Tensor) -> Tensor:
        """Return values (B, C, h, w) minus the threshold, at least 0."""
        return (values - self.threshold).relu()


class ChannelsLast(nn.Module):
    """Returns a map (B, h, w, C), as Swin does."""

    def forward(self, values: Tensor) -> Tensor:
        return values.permute(0, 2, 3, 1)


class Mean(nn.Module):
    """Averages a map (B, h, w, C)."""

    def forward(self, values: Tensor) -> Tensor:
        return values.mean(dim=(1, 2))


HEADS: dict[str, list[nn.Module]] = {
    "convolutional": [nn.AdaptiveAvgPool2d(1), nn.Flatten()],
    "tokens": [Tokens()],
    "channels last": [ChannelsLast(), Mean()],
}


def planted_tower(head: str) -> VisionTower:
    """Return a tower whose two features are the amounts of red and of blue."""
    detect = nn.Conv2d(3, 2, kernel_size=4, stride=4, bias=False)
    colours = torch.tensor([[1.0, -0.5, -0.5], [-0.5, -0.5, 1.0]])
    with torch.no_grad():
        detect.weight.copy_(colours[:, :, None, None].expand_as(detect.weight) / 16)
    backbone = Backbone(
        nn.Sequential(detect, Above(0.5), *HEADS[head]),
        dim=2,
        preprocess=Preprocess(size=SIDE),
        spec=BackboneSpec(name="planted", size=SIDE),
    )
    tower = VisionTower(
        backbone, dim=2, classes={"first": ["a", "b"], "colour.of it": [*QUADRANTS]}
    )
    tower.heads[1].load_state_dict({"weight": 4 * torch.eye(2), "bias": torch.zeros(2)})
    return tower.eval()


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """Return a grey picture with a red square in one corner and a paler blue one in the next."""
    pixels = np.full((SIDE, SIDE, 3), 116, dtype=np.uint8)
    pixels[4:12, 4:12] = (230, 40, 40)
    pixels[4:12, 20:28] = (90, 90, 200)
    return Image.fromarray(pixels)


def share_in(heat: Floats, colour: str) -> float:
    """Return the share of the positive heat in the quadrant of the colour."""
    positive = np.maximum(heat, 0)
    return float(positive[QUADRANTS[colour]].sum() / positive.sum())


@pytest.mark.parametrize("colour", QUADRANTS)
@pytest.mark.parametrize("method", METHODS)
def test_heat_is_where_the_class_is(
    picture: Image.Image, method: Method, colour: Literal["red", "blue"]
) -> None:
    tower = planted_tower("convolutional")
    # A grid of 8 cuts the picture along the squares.
    patches = Perturbation(grid=8, evaluations=300)
    found = explain(tower, picture, class_name=colour, method=method, perturbation=patches)
    assert found.class_name == colour
    assert found.heat.shape == (SIDE, SIDE)
    assert found.heat.dtype == np.float32
    assert np.abs(found.heat).max() == pytest.approx(1.0)
    assert share_in(found.heat, colour) > 0.85


@pytest.mark.parametrize("head", HEADS)
def test_grad_cam_reads_tokens_and_either_order_of_channels(
    picture: Image.Image, head: str
) -> None:
    tower = planted_tower(head)
    expected = explain(planted_tower("convolutional"), picture, class_name="blue")
    found = explain(tower, picture, class_name="blue")
    np.testing.assert_allclose(found.heat, expected.heat, atol=1e-5)


@pytest.mark.parametrize("method", ["lime", "shap"])
def test_heat_of_opposing_parts_is_negative(picture: Image.Image, method: Method) -> None:
    found = explain(planted_tower("convolutional"), picture, class_name="red", method=method)
    assert found.heat[QUADRANTS["blue"]].min() < -0.05
    assert found.heat[QUADRANTS["blue"]].max() < 0.1


def test_the_most_probable_class_of_the_last_target_is_explained(picture: Image.Image) -> None:
    tower = planted_tower("convolutional").train()
    found = explain(tower, picture)
    probabilities = tower.predict_proba([picture])["colour.of it"][0]
    assert found.class_name == "red"
    assert found.probability == pytest.approx(probabilities[0], abs=1e-6)
    assert tower.training
    assert explain(tower, picture, target="first").class_name in ("a", "b")


def test_grad_cam_equals_captum_on_the_last_map_of_more_than_one_cell() -> None:
    torch.manual_seed(0)
    tower = VisionTower(build_backbone("resnet10t", size=32), dim=8, classes={"a": ["x", "y"]})
    tower.eval()
    # Residual branches start at zero, and without them all cells would have the same weight.
    for layer in tower.backbone.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    images = normalise(to_pixels(picture)[None], tower.preprocess)
    # The map of the fourth stage is one cell, and its convolutions weight the cells of the third.
    captum = LayerGradCam(lambda images: tower.logits(images)["a"], tower.backbone.layer3)
    for wanted, name in enumerate(["x", "y"]):
        cells = captum.attribute(images, target=wanted, relu_attributions=True).detach()
        assert cells.shape == (1, 1, 2, 2)
        assert cells.max() > 0
        heat = F.interpolate(cells, (32, 32), mode="bilinear")[0, 0]
        found = explain(tower, picture, class_name=name)
        np.testing.assert_allclose(found.heat, heat / heat.max(), atol=1e-4)


def test_grad_cam_explains_a_frozen_network_and_leaves_no_hook(picture: Image.Image) -> None:
    tower = planted_tower("convolutional").requires_grad_(False)
    assert share_in(explain(tower, picture).heat, "red") > 0.85
    assert not any(module._forward_hooks for module in tower.modules())
    assert all(value.grad is None for value in tower.parameters())


@pytest.mark.parametrize("name", ["test_vit", "test_vit4", "test_convnext", "test_efficientnet"])
def test_every_family_has_a_map_of_its_patches(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name, size=64)
    with record_maps(backbone.network.eval(), backbone.dim) as maps:
        backbone.network(torch.randn(1, 3, 64, 64))
    last = maps[-1]
    assert last.to_map(last.values).shape == (backbone.dim, last.side, last.side)
    assert last.side == (4 if "vit" in name else 2)


@pytest.mark.parametrize("method", ["lime", "shap"])
def test_the_seed_decides_and_the_global_generator_keeps_its_state(
    picture: Image.Image, method: Method
) -> None:
    tower = planted_tower("convolutional")

    def heat(seed: int) -> Floats:
        patches = Perturbation(evaluations=60, seed=seed)
        return explain(tower, picture, method=method, perturbation=patches).heat

    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = heat(0)
    torch.testing.assert_close(torch.rand(1), expected, atol=0, rtol=0)
    np.testing.assert_array_equal(heat(0), first)
    assert np.abs(heat(1) - first).max() > 1e-4


def test_overlay_reddens_supporting_parts_and_strength_0_changes_nothing(
    picture: Image.Image,
) -> None:
    found = explain(planted_tower("convolutional"), picture, class_name="red")
    shown = np.asarray(overlay(found), dtype=int)
    plain = np.asarray(found.picture, dtype=int)
    assert shown.shape == plain.shape
    row, column = np.unravel_index(found.heat.argmax(), found.heat.shape)
    np.testing.assert_allclose(
        shown[row, column], 0.4 * plain[row, column] + 0.6 * np.array([230, 30, 30]), atol=1
    )
    np.testing.assert_array_equal(np.asarray(overlay(found, strength=0.0)), plain)


def test_bytes_of_any_shape_are_explained_at_the_size_of_the_tower(picture: Image.Image) -> None:
    buffer = io.BytesIO()
    picture.resize((80, 64), Image.Resampling.NEAREST).save(buffer, "PNG")
    found = explain(planted_tower("convolutional"), buffer.getvalue())
    assert found.picture.size == (SIDE, SIDE)
    assert share_in(found.heat, "red") > 0.85


def test_wrong_arguments_are_refused_by_name(picture: Image.Image) -> None:
    tower = planted_tower("convolutional")
    with pytest.raises(ValueError, match=r"target must be one of first, colour\.of it, got 'size'"):
        explain(tower, picture, target="size")
    with pytest.raises(ValueError, match="class_name must be one of red, blue, got 'green'"):
        explain(tower, picture, class_name="green")
    with pytest.raises(ValueError, match="method must be one of grad_cam, lime, shap, got 'cam'"):
        explain(tower, picture, method="cam")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"grid must be between 2 and 32 .*, got 40"):
        explain(tower, picture, method="lime", perturbation=Perturbation(grid=40))
    with pytest.raises(ImageError, match="cannot be decoded"):
        explain(tower, b"not a picture")


def test_grad_cam_refuses_a_network_without_a_feature_map(picture: Image.Image) -> None:
    backbone = Backbone(
        nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 4)),
        dim=4,
        preprocess=Preprocess(size=SIDE),
        spec=BackboneSpec(name="flat", size=SIDE),
    )
    tower = VisionTower(backbone, dim=2, classes={"a": ["x", "y"]})
    with pytest.raises(ValueError, match="'flat' at size 32 has no map of more than one cell"):
        explain(tower, picture)
