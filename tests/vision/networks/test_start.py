"""What training starts from where the configuration leaves it open."""

from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from safetensors.torch import save_file

from vision.checkpoint import save
from vision.config import VisionConfig
from vision.errors import WeightsError
from vision.networks.backbones import build_backbone
from vision.networks.published import WEIGHTS
from vision.networks.start import (
    FROM_SCRATCH,
    PUBLISHED,
    decide_start,
    warn_of_random_weights,
)
from vision.tower import VisionTower


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def installed() -> None:
    if WEIGHTS[PUBLISHED].find() is None:
        pytest.skip(f"the package {WEIGHTS[PUBLISHED].package} is not installed")


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """No package holds the weights."""
    monkeypatch.delitem(WEIGHTS, PUBLISHED)


def decided(**fields: Any) -> tuple[str, bool | str]:
    config = decide_start(VisionConfig(**fields))
    return config.backbone, config.pretrained


def test_installed_weights_are_taken(installed: None) -> None:
    config = decide_start(VisionConfig())
    assert config == VisionConfig(backbone=PUBLISHED, pretrained=True)
    assert decide_start(config) == config


def test_without_weights_a_resnet_is_trained_from_scratch(without: None) -> None:
    wanted = VisionConfig(backbone=FROM_SCRATCH, pretrained=False)
    assert decide_start(VisionConfig()) == wanted


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"pretrained": False}, (FROM_SCRATCH, False)),
        ({"pretrained": True}, (PUBLISHED, True)),
        ({"pretrained": "someone/weights"}, (FROM_SCRATCH, "someone/weights")),
        ({"backbone": "resnet10t"}, ("resnet10t", False)),
        ({"backbone": "torchvision/resnet18"}, ("torchvision/resnet18", False)),
        ({"backbone": "transformers/someone/vit"}, ("transformers/someone/vit", True)),
        ({"backbone": "no such network"}, ("no such network", False)),
    ],
)
def test_each_field_may_be_left_open_alone(
    fields: dict[str, Any], wanted: tuple[str, bool | str]
) -> None:
    assert decided(**fields) == wanted


def test_the_network_of_weights_that_this_library_wrote_is_taken(tmp_path: Path) -> None:
    tower = VisionTower(build_backbone("test_resnet", size=32), dim=8, classes={})
    save(tower, tmp_path / "tower")
    assert decided(pretrained=str(tmp_path / "tower")) == ("test_resnet", str(tmp_path / "tower"))
    other = tmp_path / "other.safetensors"
    save_file({name: one.contiguous() for name, one in tower.backbone.state_dict().items()}, other)
    assert decided(pretrained=str(other)) == (FROM_SCRATCH, str(other))
    (tmp_path / "config.json").write_text('{"backbone": "resnet50"}')  # as DETR's
    assert decided(pretrained=str(other)) == (FROM_SCRATCH, str(other))
    with pytest.raises(WeightsError, match=r"neither a \.safetensors file"):
        decided(pretrained="./nowhere")


def test_weights_in_the_cache_of_the_hub_count_as_here(cache: Path) -> None:
    repository = cache / "models--timm--resnet10t.c3_in1k"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    assert decided(backbone="resnet10t") == ("resnet10t", False)
    (snapshot / "model.safetensors").write_bytes(b"weights")
    assert decided(backbone="resnet10t") == ("resnet10t", True)


def test_one_line_says_what_would_be_better_than_random_weights(
    without: None, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_random_weights(VisionConfig(pretrained=False))
    assert not caplog.records
    warn_of_random_weights(VisionConfig())
    (record,) = caplog.records
    said = record.getMessage()
    assert "the vision tower (resnet18) starts from random weights" in said
    assert "pip install 'vitrine-recsys[weights]'" in said
    assert "\n" not in said
