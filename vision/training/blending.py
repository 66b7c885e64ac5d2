"""Between the network that training started from and the one that it ended with: the best mix."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)  # of the trained weights


def keep_best_blend(
    network: nn.Module,
    start: Mapping[str, Tensor],
    measure: Callable[[], dict[str, float]],
) -> dict[str, float]:
    """Leave the network with the best mix of two sets of weights, and return its metrics.

    Interpolation of fine-tuned with pretrained weights (Wortsman et al., 2022,
    https://arxiv.org/abs/2109.01903). There, a share serves pictures of other kinds; here, it is
    chosen on validation pictures, by the mean accuracy of the targets and then by the loss. As both
    ends are among the choices, neither the start nor the end is better on these pictures.

    Args:
        network: Network with its trained weights.
        start: Weights of the same network before training.
        measure: Returns the metrics of the network as it is: ``accuracy/TARGET`` and ``loss``.
    """
    end = {name: value.clone() for name, value in network.state_dict().items()}
    found: tuple[tuple[float, float], float, dict[str, float]] | None = None
    for share in SHARES:
        network.load_state_dict(_mix(start, end, share))
        metrics = measure()
        ranked = (_mean_accuracy(metrics), -metrics["loss"])
        if found is None or ranked > found[0]:
            found = ranked, share, metrics
    assert found is not None, "there are shares"
    network.load_state_dict(_mix(start, end, found[1]))
    return found[2]


def _mix(start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    return {
        # Counts of batches cannot be mixed.
        name: start[name].to(value).lerp(value, share) if value.is_floating_point() else value
        for name, value in end.items()
    }


def _mean_accuracy(metrics: Mapping[str, float]) -> float:
    accuracies = [value for name, value in metrics.items() if name.startswith("accuracy/")]
    return sum(accuracies) / max(1, len(accuracies))
