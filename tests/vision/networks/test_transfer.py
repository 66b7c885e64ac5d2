"""Stages of every kind of backbone: which are trained, when, and how fast."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn
from transformers import CLIPVisionConfig, Dinov2Config

from vision.config import TransferConfig
from vision.networks.backbones import Backbone, BackboneSpec
from vision.networks.lora import add_lora
from vision.networks.transfer import backbone_stages, fix_norms, freeze_stages, parameter_groups
from vision.networks.transformers_network import TransformersNetwork
from vision.tower import VisionTower
from vision.training.processes import Shard, shared_norms
from vision.transforms import Preprocess

VISION: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 32,
    "patch_size": 8,
}


def from_timm(name: str, **options: Any) -> nn.Module:
    network: nn.Module = timm.create_model(name, num_classes=0, **options)
    return network


def from_torchvision(name: str) -> nn.Module:
    # Only the names of parameters are needed, so the weights are not allocated.
    with torch.device("meta"):
        network: nn.Module = torchvision.models.get_model(name, weights=None)
    return network


# Each network with its number of stages and the first parameter of three stages.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, tuple[str, str, str]]] = {
    "ResNet": (
        lambda: from_timm("resnet18"),
        5,
        ("conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight"),
    ),
    "DenseNet": (
        lambda: from_timm("densenet121"),
        6,
        (
            "features.conv0.weight",
            "features.denseblock1.denselayer1.norm1.weight",
            "features.norm5.weight",
        ),
    ),
    "EfficientNet": (
        lambda: from_timm("test_efficientnet"),
        6,
        ("conv_stem.weight", "blocks.0.0.conv.weight", "blocks.4.0.conv_pw.weight"),
    ),
    "MobileNetV3": (
        lambda: from_timm("mobilenetv3_small_050"),
        8,
        ("conv_stem.weight", "blocks.0.0.conv_dw.weight", "conv_head.weight"),
    ),
    "ConvNeXt": (
        lambda: from_timm("test_convnext"),
        6,
        ("stem.0.weight", "stages.0.blocks.0.gamma", "head.norm.weight"),
    ),
    "ViT": (
        lambda: from_timm("test_vit"),
        7,
        ("cls_token", "blocks.0.norm1.weight", "blocks.5.norm1.weight"),
    ),
    "Swin": (
        lambda: from_timm("swin_tiny_patch4_window7_224", embed_dim=12, depths=(1, 1, 1, 1)),
        6,
        ("patch_embed.proj.weight", "layers.0.blocks.0.norm1.weight", "norm.weight"),
    ),
    "ResNet of torchvision": (
        lambda: from_torchvision("resnet18"),
        5,
        ("conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight"),
    ),
    "Inception of torchvision": (
        lambda: from_torchvision("inception_v3"),
        12,
        (
            "Conv2d_1a_3x3.conv.weight",
            "Mixed_5b.branch1x1.conv.weight",
            "Mixed_7c.branch1x1.conv.weight",
        ),
    ),
    "DenseNet of torchvision": (
        lambda: from_torchvision("densenet121"),
        5,
        (
            "features.conv0.weight",
            "features.denseblock1.denselayer1.norm1.weight",
            "features.denseblock4.denselayer1.norm1.weight",
        ),
    ),
    "EfficientNet of torchvision": (
        lambda: from_torchvision("efficientnet_b0"),
        9,
        ("features.0.0.weight", "features.1.0.block.0.0.weight", "features.8.0.weight"),
    ),
    "ViT of torchvision": (
        lambda: from_torchvision("vit_b_16"),
        13,
        (
            "class_token",
            "encoder.layers.encoder_layer_0.ln_1.weight",
            "encoder.layers.encoder_layer_11.ln_1.weight",
        ),
    ),
    "Swin of torchvision": (
        lambda: from_torchvision("swin_t"),
        8,
        ("features.0.0.weight", "features.1.0.norm1.weight", "features.7.0.norm1.weight"),
    ),
    "CLIP": (
        lambda: TransformersNetwork(CLIPVisionConfig(**VISION)),
        3,
        (
            "network.embeddings.class_embedding",
            "network.encoder.layers.0.self_attn.k_proj.weight",
            "network.encoder.layers.1.self_attn.k_proj.weight",
        ),
    ),
    "DINOv2": (
        lambda: TransformersNetwork(Dinov2Config(**VISION)),
        3,
        (
            "network.embeddings.cls_token",
            "network.encoder.layer.0.norm1.weight",
            "network.encoder.layer.1.norm1.weight",
        ),
    ),
}


@pytest.mark.filterwarnings("ignore:The default weight initialization of inception_v3")
@pytest.mark.parametrize("family", NETWORKS)
def test_every_parameter_is_in_one_stage_from_picture_to_features(family: str) -> None:
    build, count, (first, second, last) = NETWORKS[family]
    network = build()
    stages = backbone_stages(network)
    assert len(stages) == count
    assert (stages[0][0], stages[1][0], stages[-1][0]) == (first, second, last)
    names = [name for names in stages for name in names]
    assert sorted(names) == sorted(name for name, _ in network.named_parameters())


def test_a_network_without_layers_is_one_stage() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert backbone_stages(network) == [["0.weight", "0.bias", "1.weight", "1.bias"]]


def build_tower(name: str = "test_resnet") -> VisionTower:
    torch.manual_seed(0)
    preprocess, spec = Preprocess(size=32), BackboneSpec(name=name, size=32)
    backbone = Backbone(timm.create_model(name, num_classes=0), 96, preprocess, spec)
    return VisionTower(backbone, dim=8, classes={"colour": ["a", "b"]})


def learning(tower: VisionTower) -> list[bool]:
    """Return whether each stage is trained, after checking that none is trained in part."""
    parameters = dict(tower.backbone.named_parameters())
    stages = [
        {parameters[name].requires_grad for name in names}
        for names in backbone_stages(tower.backbone)
    ]
    assert all(len(stage) == 1 for stage in stages)
    return [stage.pop() for stage in stages]


@pytest.mark.parametrize(
    ("frozen", "wanted"), [(0, [1, 1, 1, 1, 1]), (2, [0, 0, 1, 1, 1]), ("all", [0] * 5)]
)
def test_the_first_stages_are_frozen(frozen: Any, wanted: list[int]) -> None:
    tower = build_tower()
    for epoch in (0, 7):
        freeze_stages(tower, TransferConfig(frozen_stages=frozen), epoch)
        assert learning(tower) == wanted
    assert all(weight.requires_grad for weight in tower.heads.parameters())
    assert all(weight.requires_grad for weight in tower.project.parameters())


def test_stages_are_released_from_the_last_to_the_first_that_is_not_kept_frozen() -> None:
    tower = build_tower()
    transfer = TransferConfig(frozen_stages=2, unfreeze_epochs=3)
    released = []
    for epoch in range(20):
        freeze_stages(tower, transfer, epoch)
        released.append(sum(learning(tower)))
        assert learning(tower) == sorted(learning(tower))
    assert released == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 11


def test_the_frozen_stages_of_an_epoch_do_not_depend_on_earlier_epochs() -> None:
    tower = build_tower()
    freeze_stages(tower, TransferConfig(frozen_stages="all"), 0)
    freeze_stages(tower, TransferConfig(), 0)
    assert all(learning(tower))


@pytest.mark.parametrize("frozen", [6, -1])
def test_more_frozen_stages_than_there_are_is_refused(frozen: int) -> None:
    transfer = TransferConfig.model_construct(frozen_stages=frozen)
    for call in (
        lambda: freeze_stages(build_tower(), transfer, 0),
        lambda: parameter_groups(build_tower(), transfer, learning_rate=1.0, weight_decay=0.0),
    ):
        with pytest.raises(ValueError, match=rf"between 0 and 5 \(the backbone.*got {frozen}"):
            call()


def moved(tower: VisionTower, transfer: TransferConfig) -> dict[str, bool]:
    """Return whether one training pass changes the statistics of each batch norm, by name."""
    tower.train()
    fix_norms(tower, transfer)
    norms = {name: part for name, part in tower.named_modules() if isinstance(part, nn.BatchNorm2d)}
    before = {name: part.get_buffer("running_mean").clone() for name, part in norms.items()}
    tower(torch.rand(2, 3, 32, 32))
    return {
        name: not part.get_buffer("running_mean").equal(before[name])
        for name, part in norms.items()
    }


def test_statistics_of_frozen_stages_are_fixed() -> None:
    tower, transfer = build_tower(), TransferConfig(frozen_stages=3)
    freeze_stages(tower, transfer, 0)
    stays = ("backbone.conv1", "backbone.bn1", "backbone.layer1", "backbone.layer2")
    for name, changes in moved(tower, transfer).items():
        assert changes != name.startswith(stays), name


def test_freeze_norms_fixes_all_statistics_of_the_backbone() -> None:
    tower, transfer = build_tower(), TransferConfig(freeze_norms=True)
    assert not any(moved(tower, transfer).values())
    assert all(weight.requires_grad for weight in tower.parameters())
    assert tower.project.training
    assert all(moved(tower, TransferConfig()).values())


def test_statistics_of_synchronised_batch_norms_are_fixed_as_well() -> None:
    tower = build_tower()
    with shared_norms(tower.backbone, Shard(0, 2), torch.device("cuda")):
        shared = [part for part in tower.modules() if isinstance(part, nn.SyncBatchNorm)]
        fix_norms(tower.train(), TransferConfig(freeze_norms=True))
        assert shared
        assert not any(norm.training for norm in shared)
        fix_norms(tower.train(), TransferConfig())
        assert all(norm.training for norm in shared)


def test_without_layer_decay_there_are_two_groups_matrices_and_vectors() -> None:
    tower, proxies = build_tower(), nn.Parameter(torch.zeros(2, 8))
    groups = parameter_groups(
        tower, TransferConfig(), [proxies], learning_rate=0.1, weight_decay=0.3
    )
    everything = [*tower.parameters(), proxies]
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.1, 0.3), (0.1, 0.0)]
    for group, wanted in zip(
        groups,
        ([w for w in everything if w.ndim > 1], [w for w in everything if w.ndim <= 1]),
        strict=True,
    ):
        assert [id(weight) for weight in group["params"]] == [id(weight) for weight in wanted]


def test_the_rate_of_a_stage_is_the_decayed_rate_of_the_next_stage() -> None:
    tower = build_tower()
    groups = parameter_groups(
        tower, TransferConfig(layer_decay=0.5), learning_rate=0.8, weight_decay=0.3
    )
    rates = {id(weight): group["lr"] for group in groups for weight in group["params"]}
    names = {
        "heads.0.weight": 0.8,
        "project.0.weight": 0.8,
        "backbone.layer4.0.conv1.weight": 0.4,
        "backbone.layer4.0.bn1.bias": 0.4,
        "backbone.layer3.0.conv1.weight": 0.2,
        "backbone.layer2.0.conv1.weight": 0.1,
        "backbone.layer1.0.conv1.weight": 0.05,
        "backbone.conv1.0.weight": 0.025,
    }
    for name, wanted in names.items():
        assert math.isclose(rates[id(tower.get_parameter(name))], wanted), name
    assert len(rates) == len(list(tower.parameters()))
    for group in groups:
        vectors = {weight.ndim <= 1 for weight in group["params"]}
        assert vectors == {group["weight_decay"] == 0.0}


def test_groups_include_stages_released_later_and_exclude_frozen_ones() -> None:
    tower, transfer = build_tower(), TransferConfig(frozen_stages=2, unfreeze_epochs=1)
    freeze_stages(tower, transfer, 0)
    groups = parameter_groups(tower, transfer, learning_rate=1.0, weight_decay=0.0)
    held = {id(weight) for group in groups for weight in group["params"]}
    freeze_stages(tower, transfer, 100)
    assert held == {id(weight) for weight in tower.parameters() if weight.requires_grad}
    assert 0 < len(held) < len(list(tower.parameters()))


def test_training_changes_all_weights_except_frozen_ones() -> None:
    tower = build_tower()
    transfer = TransferConfig(unfreeze_epochs=1, layer_decay=0.9)
    groups = parameter_groups(tower, transfer, learning_rate=0.01, weight_decay=0.1)
    optimizer = torch.optim.AdamW(groups)
    for epoch in range(3):
        freeze_stages(tower, transfer, epoch)
        before = {name: weight.detach().clone() for name, weight in tower.named_parameters()}
        optimizer.zero_grad()
        tower.outputs(torch.rand(4, 3, 32, 32)).logits["colour"].square().sum().backward()
        optimizer.step()
        stages = backbone_stages(tower.backbone)
        moves = [
            any(
                not tower.backbone.get_parameter(name).equal(before[f"backbone.{name}"])
                for name in names
            )
            for names in stages
        ]
        assert moves == learning(tower) == [stage >= 5 - epoch for stage in range(5)]


def test_with_lora_only_the_low_rank_updates_are_released() -> None:
    preprocess, spec = Preprocess(size=32), BackboneSpec(name="test_vit", size=32)
    network = timm.create_model("test_vit", num_classes=0, img_size=32)
    tower = VisionTower(Backbone(network, 64, preprocess, spec), dim=8, classes={"c": ["a", "b"]})
    add_lora(tower.backbone, rank=2, alpha=4.0, size=32)
    transfer = TransferConfig(lora_rank=2)
    freeze_stages(tower, transfer, 0)
    names = {name for name, weight in tower.backbone.named_parameters() if weight.requires_grad}
    # Six blocks have two layers with two factors each.
    assert len(names) == 24
    assert all(".lora_" in name for name in names)
    groups = parameter_groups(tower, transfer, learning_rate=1.0, weight_decay=0.0)
    held = {id(weight) for group in groups for weight in group["params"]}
    assert held == {id(weight) for weight in tower.parameters() if weight.requires_grad}
