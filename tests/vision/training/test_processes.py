"""Several processes: every row goes to one of them, and together they learn what one would."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vision.checkpoint import load
from vision.config import VisionConfig
from vision.dataset import EpochShuffle, Samples
from vision.finetune import finetune
from vision.training.processes import WHOLE, Shard, ShardedOrder, current_shard, gather, total

PROGRAM = Path(__file__).parent / "train_together.py"


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


def test_two_processes_learn_what_one_does(planted: Callable[..., Samples], tmp_path: Path) -> None:
    samples = planted(48)
    config = VisionConfig.model_validate(
        {
            # Normalises every picture by itself, so that sharing a batch changes no statistics.
            "backbone": "test_vit",
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
    told = {
        "config": config.model_dump(),
        "root": str(samples.root),
        "images": [str(image) for image in samples.images],
        "targets": {name: labels.tolist() for name, labels in samples.targets.items()},
        "classes": {name: list(names) for name, names in samples.classes.items()},
    }
    (tmp_path / "told.json").write_text(json.dumps(told))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *launch, str(PROGRAM), str(tmp_path / "told.json"), str(tmp_path / "two")],
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
