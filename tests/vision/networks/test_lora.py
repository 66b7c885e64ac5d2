"""Only the low-rank updates are trained, and merging leaves only changed weights."""

import copy
import sys
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models import SwinTransformer, VisionTransformer
from transformers import CLIPVisionConfig, Dinov2Config, SiglipVisionConfig

from vision.networks.lora import add_lora, merge_lora
from vision.networks.transformers_network import TransformersNetwork

SIZE = 32
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": SIZE,
    "patch_size": 8,
}


def from_timm(name: str, **options: Any) -> nn.Module:
    network: nn.Module = timm.create_model(name, num_classes=0, img_size=SIZE, **options)
    return network


def torchvision_vit() -> nn.Module:
    network: nn.Module = VisionTransformer(
        SIZE, 8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=16
    )
    network.heads = nn.Identity()
    return network


# Each network with the number of layers or whole attentions that are updated.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "ViT": (lambda: from_timm("test_vit"), 12),
    "Swin": (
        lambda: from_timm(
            "swin_tiny_patch4_window7_224", embed_dim=12, depths=(1, 1), num_heads=(1, 1)
        ),
        4,
    ),
    "CLIP": (lambda: TransformersNetwork(CLIPVisionConfig(**VISION)), 4),
    # Its features are pooled by an attention of torch, which has two updates.
    "SigLIP": (lambda: TransformersNetwork(SiglipVisionConfig(**VISION)), 6),
    "DINOv2": (lambda: TransformersNetwork(Dinov2Config(**VISION)), 4),
    "ViT of torchvision": (torchvision_vit, 2),
}


@pytest.fixture(params=list(NETWORKS))
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def build(family: str) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[family][0]().eval()


def pictures() -> Tensor:
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def test_exactly_the_low_rank_weights_are_trained(family: str) -> None:
    network = build(family)
    weights = {name: part.detach().clone() for name, part in network.named_parameters()}
    features = network(pictures()).detach()
    add_lora(network, rank=2, alpha=4.0, size=SIZE)
    assert not network.training
    torch.testing.assert_close(network(pictures()), features, msg="the updates start at zero")
    network(pictures()).square().sum().backward()
    trained = {name for name, part in network.named_parameters() if part.grad is not None}
    assert trained == {name for name, _ in network.named_parameters() if ".lora_" in name}
    assert len(trained) == 2 * NETWORKS[family][1]
    assert all(2 in network.get_parameter(name).shape for name in trained)
    plain = merge_lora(network)
    for name, part in plain.named_parameters():
        torch.testing.assert_close(part.detach(), weights[name])


def test_a_merged_network_has_the_same_output_and_plain_layers(family: str) -> None:
    network = build(family)
    keys = set(network.state_dict())
    before = network(pictures()).detach()
    add_lora(network, rank=2, alpha=4.0, size=SIZE)
    with torch.no_grad():
        for name, part in network.named_parameters():
            if ".lora_B." in name:
                part.normal_()
    # A moving average of the weights is a copy of the network, so copies must work as well.
    unmerged = copy.deepcopy(network)(pictures()).detach()
    merged = merge_lora(network)
    assert merged is network
    assert set(merged.state_dict()) == keys
    assert all(part.requires_grad for part in merged.parameters())
    assert not any("peft" in type(part).__module__ for part in merged.modules())
    assert (unmerged - before).abs().max() > 1e-3
    torch.testing.assert_close(merged(pictures()), unmerged, atol=1e-4, rtol=1e-4)
    build(family).load_state_dict(merged.state_dict())


def test_the_update_is_the_product_of_the_factors_times_alpha_over_rank() -> None:
    network = build("ViT")
    path = "blocks.0.attn.proj"
    before = network.get_parameter(f"{path}.weight").detach().clone()
    add_lora(network, rank=2, alpha=6.0, size=SIZE)
    down = network.get_parameter(f"{path}.lora_A.default.weight")
    up = network.get_parameter(f"{path}.lora_B.default.weight")
    nn.init.normal_(up)
    wanted = before + 6.0 / 2 * up.detach() @ down.detach()
    torch.testing.assert_close(merge_lora(network).get_parameter(f"{path}.weight").data, wanted)


def test_a_network_without_attention_is_refused() -> None:
    network = timm.create_model("test_resnet", num_classes=0)
    with pytest.raises(ValueError, match=r"lora_rank = 2 needs .* ResNet has none"):
        add_lora(network, rank=2, alpha=4.0, size=SIZE)


def torchvision_swin() -> nn.Module:
    network: nn.Module = SwinTransformer([4, 4], 12, [1, 1], [1, 1], [4, 4])
    network.head = nn.Identity()
    return network


@pytest.mark.parametrize(
    ("build_network", "layer"),
    [
        (torchvision_swin, r"4 of the layers .*features\.1\.0\.attn\.qkv"),
        (
            lambda: from_timm(
                "beit_base_patch16_224", depth=2, embed_dim=48, num_heads=2, mlp_ratio=1
            ),
            r"2 of the layers .*blocks\.0\.attn\.qkv",
        ),
    ],
)
def test_an_update_without_effect_is_refused(
    build_network: Callable[[], nn.Module], layer: str
) -> None:
    with pytest.raises(ValueError, match=rf"does not call {layer}"):
        add_lora(build_network(), rank=2, alpha=4.0, size=SIZE)


def test_merging_a_network_without_updates_changes_nothing() -> None:
    network = build("ViT")
    before = copy.deepcopy(network.state_dict())
    torch.testing.assert_close(dict(merge_lora(network).state_dict()), dict(before))


def test_the_error_without_peft_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"pip install 'vitrine-recsys\[lora\]'"):
        add_lora(build("ViT"), rank=2, alpha=4.0, size=SIZE)
