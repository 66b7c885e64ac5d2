"""One builder makes the networks of every library, with or without weights from disk."""

import urllib.error
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import VisionTransformer
from torchvision.ops import StochasticDepth
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    IJepaConfig,
    IJepaModel,
    PreTrainedModel,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from vision.checkpoint import load, save
from vision.errors import WeightsError
from vision.networks.backbones import (
    BackboneSpec,
    build_backbone,
    enable_recompute,
    restore_backbone,
)
from vision.networks.torchvision_network import resampled
from vision.tower import VisionTower
from vision.transforms import Preprocess

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
VISION = {**SMALL, "image_size": 32, "patch_size": 8}
# Networks as they are published: CLIP and SigLIP include their text half.
TRANSFORMERS: dict[str, Callable[[], PreTrainedModel]] = {
    "CLIP": lambda: CLIPModel(
        CLIPConfig(text_config={**SMALL, "vocab_size": 9}, vision_config=VISION, projection_dim=8)
    ),
    "SigLIP": lambda: SiglipModel(
        SiglipConfig(text_config={**SMALL, "vocab_size": 9}, vision_config=VISION)
    ),
    "DINOv2": lambda: Dinov2Model(Dinov2Config(**VISION)),
    "ViT": lambda: ViTModel(ViTConfig(**VISION)),
}


def publish(network: PreTrainedModel, folder: Path, **processor: Any) -> str:
    """Write a network and its image processor as on a hub, and return its backbone name."""
    network.save_pretrained(folder)
    CLIPImageProcessor(**processor).save_pretrained(folder)
    return f"transformers/{folder}"


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet10t", 32),
        ("inception_v3", 75),
        ("inception_v4", 75),
        ("densenet121", 32),
        ("efficientnet_b0", 32),
        ("mobilenetv3_small_050", 32),
        ("convnext_atto", 32),
        ("vit_tiny_patch16_224", 48),
        ("swin_tiny_patch4_window7_224", 64),
        ("torchvision/resnet18", 32),
        ("torchvision/inception_v3", 75),
        ("torchvision/googlenet", 32),
        ("torchvision/efficientnet_b0", 32),
        ("torchvision/mobilenet_v3_small", 32),
        ("torchvision/vit_b_16", 48),
        ("torchvision/swin_t", 64),
    ],
)
def test_every_family_returns_features_of_its_dim(name: str, size: int) -> None:
    backbone = build_backbone(name, size=size)
    # In training mode some networks would also return auxiliary classes.
    features = backbone.network.train()(torch.zeros(2, 3, size, size))
    assert features.shape == (2, backbone.dim)
    assert backbone.preprocess.size == size


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_a_transformers_backbone_is_the_vision_half_at_any_size(
    family: str, tmp_path: Path
) -> None:
    saved = TRANSFORMERS[family]().eval()
    name = publish(saved, tmp_path)
    half: Any = getattr(saved, "vision_model", saved)
    images = torch.rand(2, 3, 32, 32)
    backbone = build_backbone(name, pretrained=True, size=32)
    wanted = half(pixel_values=images).pooler_output
    torch.testing.assert_close(backbone.network.eval()(images), wanted)
    assert not any("text" in key for key in backbone.network.state_dict())
    # At another size the weights are the same and the position embeddings are resampled.
    larger = build_backbone(name, pretrained=True, size=48)
    torch.testing.assert_close(larger.network.state_dict(), backbone.network.state_dict())
    restored = restore_backbone(larger.spec, larger.preprocess)
    restored.network.load_state_dict(larger.network.state_dict())
    for network in (larger.network, restored.network):
        features = network.eval()(torch.rand(2, 3, 48, 48))
        assert features.shape == (2, larger.dim)
    assert build_backbone(name, size=40).network(torch.rand(2, 3, 40, 40)).shape == (2, larger.dim)


def test_an_unknown_name_lists_similar_ones() -> None:
    with pytest.raises(ValueError, match=r"got 'resnet19'; similar timm names: .*resnet18"):
        build_backbone("resnet19")
    with pytest.raises(ValueError, match="torchvision has no classification network 'resnet19'"):
        build_backbone("torchvision/resnet19")


def depth_rates(network: nn.Module) -> torch.Tensor:
    return torch.tensor([part.p for part in network.modules() if isinstance(part, StochasticDepth)])


@pytest.mark.parametrize("name", ["convnext_tiny", "efficientnet_b0", "swin_t", "maxvit_t"])
def test_stochastic_depth_of_torchvision_rises_to_the_rate(name: str) -> None:
    published = depth_rates(torchvision.models.get_model(name))
    # The default rate of the library, which is above 0 for all of them, is replaced.
    assert published[-1] > 0
    for rate in (0.0, 0.3):
        network = build_backbone(f"torchvision/{name}", size=224, drop_path=rate).network
        torch.testing.assert_close(depth_rates(network), published * rate / published[-1])


def test_stochastic_depth_of_transformers_is_the_rate(tmp_path: Path) -> None:
    # The published configuration has another rate.
    saved = Dinov2Model(Dinov2Config(**VISION, drop_path_rate=0.2))
    name = publish(saved, tmp_path)
    images = torch.rand(4, 3, 32, 32)
    for pretrained in (True, False):
        steady, dropping = (
            build_backbone(name, pretrained=pretrained, size=32, drop_path=rate)
            for rate in (0.0, 0.9)
        )
        assert torch.equal(steady.network(images), steady.network(images))
        assert not torch.equal(dropping.network(images), dropping.network(images))
        restored: Any = restore_backbone(dropping.spec, dropping.preprocess).network
        assert restored.network.config.drop_path_rate == 0.9


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vgg11", r"'vgg11' does not take .*drop_path_rate"),
        ("torchvision/resnet18", "drop_path must be 0 for 'torchvision/resnet18', .*got 0.1"),
        ("transformers", "drop_path must be 0 for 'transformers/.*, .*got 0.1"),
    ],
)
def test_a_rate_for_a_network_without_stochastic_depth_is_refused(
    name: str, message: str, tmp_path: Path
) -> None:
    if name == "transformers":
        name = publish(TRANSFORMERS["CLIP"](), tmp_path)
    build_backbone("resnet10t", drop_path=0.1)
    build_backbone(name, size=32)
    with pytest.raises(ValueError, match=message):
        build_backbone(name, size=32, drop_path=0.1)


def test_weights_come_from_a_file_or_a_folder(tmp_path: Path) -> None:
    torch.manual_seed(1)
    # Published weights include a classifier.
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
    with pytest.raises(
        WeightsError, match=r"1 tensors of this network are missing.*layer4\.0\.conv1"
    ):
        build_backbone("resnet10t", pretrained=str(tmp_path))


def test_a_missing_path_is_not_taken_for_a_hub_id(tmp_path: Path, homeless: None) -> None:
    for path in (str(tmp_path / "absent"), "./absent", "absent", "~/absent"):
        with pytest.raises(WeightsError, match=r"neither a \.safetensors file"):
            build_backbone("resnet10t", pretrained=path)
    (tmp_path / "weights.pth").write_bytes(b"pickle")
    with pytest.raises(WeightsError, match=r"must be a \.safetensors file"):
        build_backbone("resnet10t", pretrained=str(tmp_path / "weights.pth"))
    (tmp_path / "weights.safetensors").write_bytes(b"torn")
    with pytest.raises(WeightsError, match="cannot be read"):
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
def test_the_error_for_unreachable_weights_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, pretrained: bool | str
) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("Name or service not known")

    # These switch off the hub and the only download function of torch.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"not on this machine.*set pretrained = 'DIR'"):
        build_backbone(name, pretrained=pretrained)


def test_normalisation_and_filter_come_from_the_image_processor(tmp_path: Path) -> None:
    name = publish(
        TRANSFORMERS["ViT"](),
        tmp_path,
        image_mean=[0.1, 0.2, 0.3],
        image_std=[0.4, 0.5, 0.6],
        resample=2,
    )
    assert build_backbone(name, pretrained=True, size=32, fit="crop").preprocess == Preprocess(
        size=32, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), interpolation="bilinear", fit="crop"
    )


def test_weights_of_transformers_are_float32_and_complete(tmp_path: Path) -> None:
    half = publish(TRANSFORMERS["ViT"]().half(), tmp_path / "half")
    for pretrained in (True, False):
        network = build_backbone(half, pretrained=pretrained, size=32).network
        assert {weight.dtype for weight in network.parameters()} == {torch.float32}
    for lacks in ("layernorm.bias", "pooler.dense.bias"):
        torn = tmp_path / lacks
        name = publish(TRANSFORMERS["ViT"](), torn)
        weights = load_file(torn / "model.safetensors")
        del weights[lacks]
        save_file(weights, torn / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(WeightsError, match=rf"1 tensors of this network are missing.*{lacks}"):
            build_backbone(name, pretrained=True, size=32)


def test_a_classifier_published_without_a_pooler_is_read_by_its_class_token(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    published = ViTForImageClassification(ViTConfig(**VISION)).eval()
    name = publish(published, tmp_path / "vit")
    built = build_backbone(name, pretrained=True, size=32)
    images = torch.rand(2, 3, 32, 32)
    features = built.network.eval()(images)
    wanted = published(pixel_values=images).logits
    torch.testing.assert_close(published.classifier(features), wanted)
    tower = VisionTower(built, dim=8, classes={"kind": ["mug", "bowl"]})
    save(tower, tmp_path / "tower")
    (tmp_path / "vit").rename(tmp_path / "gone")
    restored = load(tmp_path / "tower")
    assert not any("pooler" in key for key in restored.state_dict())
    torch.testing.assert_close(restored.backbone(images), features)


def test_a_network_without_pooler_and_class_token_is_read_by_the_mean(tmp_path: Path) -> None:
    saved = IJepaModel(IJepaConfig(**VISION), add_pooling_layer=False).eval()
    images = torch.rand(2, 3, 32, 32)
    network = build_backbone(publish(saved, tmp_path), pretrained=True, size=32).network.eval()
    wanted = saved(pixel_values=images).last_hidden_state.mean(dim=1)
    torch.testing.assert_close(network(images), wanted)


def test_the_filter_of_published_weights_is_part_of_the_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(timm.create_model("lcnet_035").state_dict(), tmp_path / "model.safetensors")
    built = build_backbone("lcnet_035", pretrained=str(tmp_path), size=32)
    assert built.preprocess.interpolation == "bilinear"
    assert build_backbone("lcnet_035", size=32).preprocess.interpolation == "bicubic"
    # The folder in which torchvision keeps downloads.
    published = torchvision.models.MobileNet_V3_Small_Weights.DEFAULT
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    saved = torchvision.models.mobilenet_v3_small()
    torch.save(saved.state_dict(), cache / Path(published.url).name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    built = build_backbone("torchvision/mobilenet_v3_small", pretrained=True, size=32)
    assert built.preprocess == Preprocess(size=32, interpolation="bilinear")
    wanted = saved.features[0][0].weight
    torch.testing.assert_close(built.network.state_dict()["features.0.0.weight"], wanted.data)


def test_position_embeddings_in_a_file_are_resampled_to_the_size(tmp_path: Path) -> None:
    saved = timm.create_model("test_vit", img_size=64)
    save_file(saved.state_dict(), tmp_path / "model.safetensors")
    network = build_backbone("test_vit", pretrained=str(tmp_path), size=32).network
    # One class token and patches of 16 pixels.
    shapes = [of.state_dict()["pos_embed"].shape for of in (saved, network)]
    assert shapes == [(1, 17, 64), (1, 5, 64)]
    name = "blocks.0.attn.qkv.weight"
    torch.testing.assert_close(network.state_dict()[name], saved.state_dict()[name])


def test_position_embeddings_of_torchvision_are_resampled_to_the_size() -> None:
    def build(size: int) -> VisionTransformer:
        return VisionTransformer(
            size, 8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=16, num_classes=2
        )

    saved, larger = build(32), build(48)
    larger.load_state_dict(resampled(larger, saved.state_dict()))
    torch.testing.assert_close(larger.conv_proj.weight, saved.conv_proj.weight)
    # The class token is not resampled, and a constant embedding stays constant.
    positions = torch.full((1, 17, 16), 2.0)
    positions[:, 0] = 5.0
    got = resampled(larger, {"encoder.pos_embedding": positions})["encoder.pos_embedding"]
    assert got.shape == (1, 37, 16)
    torch.testing.assert_close(got[:, 0], torch.full((1, 16), 5.0))
    torch.testing.assert_close(got[:, 1:], torch.full((1, 36, 16), 2.0))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "transformers"])
def test_recomputing_does_not_change_gradients(name: str, tmp_path: Path) -> None:
    source = publish(TRANSFORMERS["CLIP"](), tmp_path) if name == "transformers" else name
    network = build_backbone(source, size=32).network.train()
    gradients = []
    for again in (False, True):
        if again:
            enable_recompute(network)
        calls = count_calls(network)
        network.zero_grad()
        network(torch.ones(2, 3, 32, 32)).square().sum().backward()
        gradients.append({key: weight.grad for key, weight in network.named_parameters()})
        assert (max(calls.values()) > 1) == again
    torch.testing.assert_close(gradients[0], gradients[1])


def count_calls(network: nn.Module) -> Counter[str]:
    """Count the forward passes of modules with weights."""
    calls: Counter[str] = Counter()
    for path, module in network.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            module.register_forward_pre_hook(lambda *_, path=path: calls.update([path]))
    return calls


@pytest.mark.parametrize("name", ["torchvision/resnet18", "dla46_c"])
def test_recomputing_is_refused_where_the_library_lacks_it(name: str) -> None:
    network = build_backbone(name, size=32).network
    with pytest.raises(ValueError, match=r"recompute must be false for backbone \w+: .*check"):
        enable_recompute(network)


def test_a_spec_restores_the_network_without_its_source(tmp_path: Path) -> None:
    source = publish(TRANSFORMERS["ViT"](), tmp_path / "vit")
    for name in ("resnet10t", source):
        built = build_backbone(name, size=32)
        if name == source:
            (tmp_path / "vit").rename(tmp_path / "gone")
        restored = restore_backbone(built.spec, built.preprocess)
        restored.network.load_state_dict(built.network.state_dict())
        images = torch.rand(2, 3, 32, 32)
        torch.testing.assert_close(restored.network.eval()(images), built.network.eval()(images))
        assert restored.dim == built.dim


def test_a_spec_of_an_earlier_release_restores_its_network() -> None:
    spec = BackboneSpec.model_validate({"name": "resnet10t", "size": 32})
    saved = Preprocess(size=32, mean=(0.5, 0.5, 0.5), interpolation="lanczos")
    assert restore_backbone(spec, saved).preprocess == saved
