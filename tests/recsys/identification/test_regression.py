import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.identification.regression import RIDGE, WIDTH, fit_regression

ROWS = torch.tensor([7, 2, 7, 2, 4, 4, 7, 2])


def drawn(n: int, *, seed: int = 0) -> Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)) + 0.5


def planted(n: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Return photos of three products, each around a direction of its own."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.arange(n) % 3
    return 3.0 * torch.eye(3, 8)[rows] + 0.5 * torch.randn(n, 8, generator=generator), rows


def test_scores_are_the_mean_of_a_gaussian_process_with_labels_as_targets() -> None:
    features, asked = drawn(8), drawn(3, seed=1)
    found = fit_regression(features, ROWS)
    mean = features.double().mean(dim=0)

    def kernel(a: Tensor, b: Tensor) -> float:
        a, b = (F.normalize(one.double() - mean, dim=0) for one in (a, b))
        return float(torch.exp(-WIDTH * (a - b).square().sum()))

    within = torch.tensor([[kernel(a, b) for b in features] for a in features]).double()
    inverse = torch.linalg.inv(within + RIDGE * torch.eye(8))
    assert found.rows.tolist() == [2, 4, 7]
    for n, photo in enumerate(found.scores(asked)):
        similar = torch.tensor([kernel(asked[n], one) for one in features]).double()
        for score, row in zip(photo.tolist(), (2, 4, 7), strict=True):
            wanted = float(similar @ inverse @ (row == ROWS).double())
            assert score == pytest.approx(wanted, abs=1e-4)


def test_a_photo_of_another_thing_scores_lower_for_every_product_than_one_of_them() -> None:
    features, rows = planted(60, seed=0)
    fitted = fit_regression(features, rows)
    asked, truth = planted(30, seed=1)
    scores = fitted.scores(asked)
    assert torch.equal(scores.argmax(dim=1), truth)
    stranger = 3.0 * torch.eye(3, 8).roll(5, dims=1)
    assert fitted.scores(stranger).max() < scores.max(dim=1).values.min()


def test_fewer_landmarks_than_photos_give_nearly_the_same_scores() -> None:
    features, rows = planted(120, seed=0)
    asked, _ = planted(30, seed=1)
    exact = fit_regression(features, rows)
    few = fit_regression(features, rows, max_landmarks=40)
    bounded = fit_regression(features, rows, max_weights=3 * 40)
    assert len(few.landmarks) == len(bounded.landmarks) == 40
    assert (few.scores(asked) - exact.scores(asked)).abs().max() < 0.15


def test_without_photos_no_product_has_a_score() -> None:
    found = fit_regression(torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64))
    assert found.scores(drawn(3)).shape == (3, 0)
