"""Several processes: every row goes to one of them, and together they learn what one would."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers.norm_act import SyncBatchNormAct
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from vision.checkpoint import load
from vision.config import VisionConfig
from vision.dataset import EpochShuffle, Samples
from vision.finetuning import finetune
from vision.training.learner import Learner
from vision.training.processes import (
    WHOLE,
    Shard,
    ShardedOrder,
    current_shard,
    gather,
    shared_norms,
    total,
)

PROGRAM = Path(__file__).parent / "train_together.py"
CARD = torch.device("cuda")


def test_each_batch_is_divided_without_loss_or_repeat() -> None:
    order = EpochShuffle(23, seed=4)
    parts = [ShardedOrder(order, batch_size=6, shard=Shard(rank, 3)) for rank in range(3)]
    for epoch in range(2):
        for part in parts:
            part.set_epoch(epoch)
        whole = list(order)
        taken = [list(part) for part in parts]
        assert [len(rows) for rows in taken] == [len(part) for part in parts] == [6, 6, 6]
        for step in range(3):
            batch = [rows[2 * step : 2 * step + 2] for rows in taken]
            together = [row for pair in zip(*batch, strict=True) for row in pair]
            assert together == whole[6 * step : 6 * step + 6]


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of the 3 processes, got 8"):
        ShardedOrder(EpochShuffle(20, seed=0), batch_size=8, shard=Shard(0, 3))
    with pytest.raises(ValueError, match=r"at most the 20 pictures .* got 32"):
        ShardedOrder(EpochShuffle(20, seed=0), batch_size=32, shard=Shard(0, 2))


def test_a_process_alone_has_all_rows() -> None:
    assert current_shard() == WHOLE
    values = torch.arange(4.0)
    assert gather(values, WHOLE) is values
    assert total(values, WHOLE) is values


def kinds(network: nn.Module) -> list[type[nn.Module]]:
    return [type(part) for part in network.modules()]


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_efficientnet", "mobilenetv3_small_050", "regnetx_002"]
)
@torch.no_grad()
def test_sharing_norms_changes_nothing_else_in_a_network(name: str) -> None:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=0)
    pictures = torch.rand(4, 3, 64, 64)
    network.train()(pictures)  # so that the statistics are none that a new norm has
    wanted, before = network.eval()(pictures), kinds(network)
    state, weights = network.state_dict(), [*map(id, network.parameters())]
    with shared_norms(network, Shard(0, 2), CARD):
        norms = [kind for kind in kinds(network) if issubclass(kind, _BatchNorm)]
        assert norms
        assert all(issubclass(kind, nn.SyncBatchNorm) for kind in norms)
        torch.testing.assert_close(network.eval()(pictures), wanted)
        assert [*network.state_dict()] == [*state]
        assert [*map(id, network.parameters())] == weights
    assert kinds(network) == before
    torch.testing.assert_close(network(pictures), wanted)
    assert [*network.state_dict()] == [*state]


def test_norms_keep_what_they_learned_while_shared() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    with shared_norms(network, Shard(0, 2), CARD):
        norm = network.get_submodule("1").eval()
        # As moving to the card and back leaves them.
        norm.register_buffer("running_mean", torch.full((4,), 7.0))
        norm.register_parameter("bias", nn.Parameter(torch.full((4,), 3.0)))
    own = network.get_submodule("1")
    assert type(own) is nn.BatchNorm2d
    assert not own.training
    assert own.get_buffer("running_mean").tolist() == [7.0] * 4
    assert own.get_parameter("bias").tolist() == [3.0] * 4


@pytest.mark.parametrize(
    ("shard", "device"), [(WHOLE, CARD), (Shard(1, 2), torch.device("cpu"))], ids=["alone", "cpu"]
)
def test_norms_are_not_shared_by_one_process_nor_on_processors(
    shard: Shard, device: torch.device
) -> None:
    network = nn.Sequential(nn.BatchNorm2d(4))
    with shared_norms(network, shard, device):
        assert kinds(network) == [nn.Sequential, nn.BatchNorm2d]


def test_cards_together_train_the_network_with_its_activations(
    planted: Callable[..., Samples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands in for two cards: what Lightning is given to train, up to its first step."""
    given: dict[str, Any] = {}

    class StoppedError(Exception):
        pass

    class Trainer:
        def __init__(self, **options: Any) -> None:
            given.update(options)

        def fit(self, learner: Learner, *_: Any, **__: Any) -> None:
            given["kinds"] = kinds(learner.tower.backbone)
            raise StoppedError

    monkeypatch.setattr("vision.finetuning.current_shard", lambda: Shard(0, 2))
    monkeypatch.setattr("vision.training.trainer.Trainer", Trainer)
    monkeypatch.setattr("vision.finetuning.resolve_device", torch.device)
    monkeypatch.setattr("vision.training.trainer.resolve_precision", lambda *_: "32-true")
    config = VisionConfig(
        backbone="test_efficientnet",
        pretrained=False,
        size=32,
        dim=8,
        batch_size=8,
        augmentation="none",
    )
    with pytest.raises(StoppedError):
        finetune(planted(16), config, workdir=tmp_path, seed=0, device="cuda")
    assert SyncBatchNormAct in given["kinds"]
    assert not any(issubclass(kind, nn.BatchNorm2d) for kind in given["kinds"])
    # It would convert them once more, to norms without activations.
    assert not given["sync_batchnorm"]


@pytest.mark.slow
def test_two_processes_learn_the_same_as_one(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    samples = planted(48)
    config = VisionConfig.model_validate(
        {
            # Normalises every picture by itself, so that sharing a batch changes no statistics.
            "backbone": "test_vit",
            "pretrained": False,
            "size": 32,
            "dim": 8,
            "epochs": 2,
            "batch_size": 16,
            "precision": "32-true",
            "augmentation": "strong",
            "policy": "trivialaugment",
            "objective": {"metric": {"supcon": 0.5}},
        }
    )
    alone = finetune(samples, config, validation=samples, workdir=tmp_path / "alone", seed=0)
    task = {
        "config": config.model_dump(),
        "root": str(samples.root),
        "images": [str(image) for image in samples.images],
        "targets": {name: labels.tolist() for name, labels in samples.targets.items()},
        "classes": {name: list(names) for name, names in samples.classes.items()},
    }
    (tmp_path / "task.json").write_text(json.dumps(task))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *launch, str(PROGRAM), str(tmp_path / "task.json"), str(tmp_path / "two")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert alone.metrics == pytest.approx(metrics, abs=1e-4)
    together = load(tmp_path / "two" / "tower").state_dict()
    for name, value in alone.tower.state_dict().items():
        torch.testing.assert_close(together[name], value, atol=2e-4, rtol=2e-3)
