"""The best mix of two networks on validation pictures."""

import pytest
import torch
from torch import nn

from vision.training.blending import SHARES, keep_best_blend


def linear(value: float) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, value)
    return layer


@pytest.mark.parametrize("best", SHARES)
def test_the_mix_that_measures_best_is_kept_with_its_metrics(best: float) -> None:
    network, start = linear(3.0), linear(-1.0).state_dict()

    def measure() -> dict[str, float]:
        share = (network.weight.item() + 1.0) / 4.0
        return {"accuracy/kind": 1.0 - abs(share - best), "loss": 0.5}

    metrics = keep_best_blend(network, start, measure)
    assert network.weight.item() == pytest.approx(-1.0 + 4.0 * best)
    assert metrics == {"accuracy/kind": 1.0, "loss": 0.5}


def test_equal_accuracies_are_decided_by_the_loss_and_then_for_the_trained_weights() -> None:
    network, start = linear(1.0), linear(0.0).state_dict()
    assert keep_best_blend(network, start, lambda: {"accuracy/kind": 0.5, "loss": 0.5})["loss"]
    assert network.weight.item() == 1.0
    keep_best_blend(
        network, start, lambda: {"accuracy/kind": 0.5, "loss": abs(network.weight.item() - 0.5)}
    )
    assert network.weight.item() == 0.5


def test_statistics_of_norms_are_mixed_and_their_counts_are_not() -> None:
    network = nn.BatchNorm1d(2)
    start = {name: value.clone() for name, value in network.state_dict().items()}
    network(torch.randn(8, 2))
    shares = iter([0.0, 0.0, 1.0, 0.0, 0.0])
    ended = network.running_mean.clone() if network.running_mean is not None else None
    keep_best_blend(network, start, lambda: {"accuracy/kind": next(shares), "loss": 0.0})
    assert network.num_batches_tracked == 1
    assert ended is not None
    torch.testing.assert_close(network.running_mean, ended / 2)
