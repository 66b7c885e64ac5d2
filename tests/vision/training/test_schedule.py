"""Optimiser and learning rate; text has a copy of this file."""

import warnings

import numpy as np
import pytest
from torch import nn

from vision.training.schedule import build_adamw, with_schedule

PEAK = 0.5


def rates(warmup_share: float, total_steps: int) -> list[float]:
    """Return the learning rate of every step, and that after the last."""
    optimizer = build_adamw(nn.Linear(2, 1), learning_rate=PEAK, weight_decay=0.0)
    made = with_schedule(optimizer, warmup_share=warmup_share, total_steps=total_steps)
    assert made["lr_scheduler"]["interval"] == "step"
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(total_steps):
            found.append(optimizer.param_groups[0]["lr"])
            made["optimizer"].step()
            made["lr_scheduler"]["scheduler"].step()
    return [*found, optimizer.param_groups[0]["lr"]]


def test_matrices_decay_and_vectors_do_not() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Linear(2, 1, bias=False))
    module[2].weight.requires_grad_(False)
    decayed, plain = build_adamw(module, learning_rate=0.1, weight_decay=0.3).param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(2, 3)]
    assert [tuple(p.shape) for p in plain["params"]] == [(2,), (2,), (2,)]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert decayed["lr"] == plain["lr"] == 0.1


def test_the_learning_rate_rises_linearly_then_falls_to_zero_as_a_cosine() -> None:
    warm, total = 11, 110
    found = rates(0.1, total)
    for step in (0, 4, 10):
        assert found[step] == pytest.approx(PEAK * (step + 1) / (warm + 1))
    for step in (11, 40, 80, 109):
        share = (step - warm) / (total - warm)
        assert found[step] == pytest.approx(PEAK * (1 + np.cos(np.pi * share)) / 2)
    assert found[total] == 0.0


def test_the_warm_up_is_at_most_half_of_the_run() -> None:
    found = rates(3.0, 20)
    assert found.index(PEAK) == 10


@pytest.mark.parametrize("total_steps", [1, 2, 9, 10, 11])
def test_a_run_of_few_steps_reaches_the_highest_rate(total_steps: int) -> None:
    found = rates(0.1, total_steps)
    assert found[0] >= 0.4 * PEAK
    assert max(found) == PEAK


def test_groups_keep_their_own_learning_rates() -> None:
    optimizer = build_adamw(nn.Linear(2, 1), learning_rate=PEAK, weight_decay=0.0)
    optimizer.param_groups[1]["lr"] = PEAK / 10
    with_schedule(optimizer, warmup_share=0.5, total_steps=6)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([PEAK / 4, PEAK / 40])
