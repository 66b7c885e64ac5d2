"""Several processes: every row goes to one of them, and together they learn what one would."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vision.dataset import EpochShuffle, Samples
from vision.processes import WHOLE, Shard, ShardedOrder, current_shard, gather, total

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


@pytest.mark.parametrize("losses", ["heads", "all"])
def test_two_processes_learn_what_one_does(
    losses: str, planted: Callable[..., Samples], tmp_path: Path
) -> None:
    samples = planted(48)
    told = {
        "root": str(samples.root),
        "images": [str(image) for image in samples.images],
        "targets": {name: labels.tolist() for name, labels in samples.targets.items()},
        "classes": {name: list(names) for name, names in samples.classes.items()},
        "losses": losses,
    }
    (tmp_path / "samples.json").write_text(json.dumps(told))
    answers = []
    for count in (1, 2):
        out = tmp_path / str(count)
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        done = subprocess.run(
            [sys.executable, *launch, str(PROGRAM), str(tmp_path / "samples.json"), str(out)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        answers.append(torch.load(out / "answer.pt", weights_only=True))
    alone, together = answers
    assert alone["metrics"] == pytest.approx(together["metrics"], abs=1e-4)
    for name, value in alone["weights"].items():
        torch.testing.assert_close(together["weights"][name], value, atol=2e-4, rtol=2e-3)
