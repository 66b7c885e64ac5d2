"""Every library's networks through one builder, with weights from disk or none."""

import urllib.error
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, ViTConfig, ViTModel

from vision.backbones import build_backbone, restore_backbone
from vision.errors import WeightsError


@pytest.mark.parametrize(
    "name",
    [
        "resnet10t",
        "mobilenetv3_small_050",
        "torchvision/mobilenet_v3_small",
        "vit_tiny_patch16_224",
    ],
)
def test_a_network_gives_features_of_the_size_it_says(name: str) -> None:
    backbone = build_backbone(name, size=32)
    features = backbone.network.eval()(torch.zeros(2, 3, 32, 32))
    assert features.shape == (2, backbone.dim)
    assert backbone.preprocess.size == 32


def test_an_unknown_name_lists_similar_ones() -> None:
    with pytest.raises(ValueError, match=r"got 'resnet19'; similar timm names: .*resnet18"):
        build_backbone("resnet19")
    with pytest.raises(ValueError, match="torchvision has no classification network 'resnet19'"):
        build_backbone("torchvision/resnet19")


def test_stochastic_depth_where_there_is_none_is_an_error() -> None:
    build_backbone("resnet10t", drop_path=0.1)
    with pytest.raises(ValueError, match=r"'vgg11' does not take .*drop_path_rate"):
        build_backbone("vgg11", drop_path=0.1)


def test_weights_come_from_a_file_or_a_folder(tmp_path: Path) -> None:
    torch.manual_seed(1)
    # With its classifier, as published weights are.
    saved = timm.create_model("resnet10t")
    save_file(saved.state_dict(), tmp_path / "model.safetensors")
    wanted = saved.state_dict()["layer4.0.conv1.weight"]
    for source in (tmp_path, tmp_path / "model.safetensors"):
        network = build_backbone("resnet10t", pretrained=str(source)).network
        torch.testing.assert_close(network.state_dict()["layer4.0.conv1.weight"], wanted)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    weights = build_backbone("resnet10t").network.state_dict()
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="do not fit this network"):
        build_backbone("mobilenetv3_small_050", pretrained=str(tmp_path))
    del weights["layer4.0.conv1.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"1 of its tensors are missing.*layer4\.0\.conv1"):
        build_backbone("resnet10t", pretrained=str(tmp_path))


def test_a_path_that_is_not_there_is_not_taken_for_a_hub_id(tmp_path: Path) -> None:
    for path in (str(tmp_path / "absent"), "./absent", "absent"):
        with pytest.raises(WeightsError, match=r"neither a \.safetensors file"):
            build_backbone("resnet10t", pretrained=path)
    (tmp_path / "weights.pth").write_bytes(b"pickle")
    with pytest.raises(WeightsError, match=r"must be a \.safetensors file"):
        build_backbone("resnet10t", pretrained=str(tmp_path / "weights.pth"))
    (tmp_path / "weights.safetensors").write_bytes(b"torn")
    with pytest.raises(WeightsError, match="do not fit this network"):
        build_backbone("resnet10t", pretrained=str(tmp_path / "weights.safetensors"))


@pytest.mark.parametrize(
    ("name", "pretrained"),
    [
        ("resnet10t", True),
        ("resnet10t", "someone/some-weights"),
        ("transformers/someone/some-vit", True),
        ("transformers/someone/some-vit", False),
        ("torchvision/resnet18", True),
    ],
)
def test_named_weights_without_a_network_say_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, pretrained: bool | str
) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("Name or service not known")

    # The hub's own switch, and torch's one way to the network.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"not on this machine.*set pretrained = 'DIR'"):
        build_backbone(name, pretrained=pretrained)


def tiny_vit(folder: Path) -> ViTModel:
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
    )
    network = ViTModel(config)
    network.save_pretrained(folder)
    CLIPImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]).save_pretrained(
        folder
    )
    return network


def test_transformers_weights_and_normalisation_come_from_a_local_folder(tmp_path: Path) -> None:
    saved = tiny_vit(tmp_path)
    backbone = build_backbone(f"transformers/{tmp_path}", pretrained=True, size=32)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(backbone.network.eval()(images), saved.eval()(images).pooler_output)
    assert backbone.preprocess.mean == (0.1, 0.2, 0.3)
    assert backbone.preprocess.std == (0.4, 0.5, 0.6)
    with pytest.raises(ValueError, match="size must be 32"):
        build_backbone(f"transformers/{tmp_path}", pretrained=True, size=64)


def test_only_the_vision_half_of_clip_is_built(tmp_path: Path) -> None:
    half = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    vision = {**half, "image_size": 32, "patch_size": 8}
    saved = CLIPModel(CLIPConfig(text_config=half, vision_config=vision, projection_dim=8))
    saved.save_pretrained(tmp_path)
    CLIPImageProcessor().save_pretrained(tmp_path)
    backbone = build_backbone(f"transformers/{tmp_path}", pretrained=True, size=32)
    images = torch.rand(2, 3, 32, 32)
    wanted = saved.eval().vision_model(pixel_values=images).pooler_output
    torch.testing.assert_close(backbone.network.eval()(images), wanted)
    assert not any("text" in name for name, _ in backbone.network.named_parameters())


def test_a_spec_restores_the_network_without_its_source(tmp_path: Path) -> None:
    tiny_vit(tmp_path / "vit")
    source = f"transformers/{tmp_path / 'vit'}"
    for name in ("resnet10t", source):
        built = build_backbone(name, size=32)
        if name == source:
            (tmp_path / "vit").rename(tmp_path / "gone")
        restored = restore_backbone(built.spec, built.preprocess)
        restored.network.load_state_dict(built.network.state_dict())
        images = torch.rand(2, 3, 32, 32)
        torch.testing.assert_close(restored.network.eval()(images), built.network.eval()(images))
        assert restored.dim == built.dim
