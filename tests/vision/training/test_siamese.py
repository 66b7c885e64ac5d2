"""SimCLR and BYOL on two views: their losses, who learns from them, and who follows."""

import math

import numpy as np
import pytest
import torch
from pytorch_metric_learning.losses import NTXentLoss
from torch import Tensor, nn

from vision.config import PretrainingConfig
from vision.training.siamese import (
    Byol,
    SimClr,
    build_method,
    byol_loss,
    momentum_at,
    nt_xent,
    spread,
)


def pair(pictures: int = 4, dim: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, pictures, dim, generator=generator)
    return first, second


def build_byol(momentum: float = 0.9) -> Byol:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Byol(backbone, 6, hidden=8, dim=4, momentum=momentum)


def test_nt_xent_matches_its_definition_in_loops() -> None:
    first, second = pair()
    views = [row / row.norm() for row in torch.cat([first, second])]
    losses = []
    for this in range(8):
        twin = (this + 4) % 8
        scores = {other: math.exp(float(views[this] @ views[other]) / 0.3) for other in range(8)}
        others = sum(score for other, score in scores.items() if other != this)
        losses.append(-math.log(scores[twin] / others))
    assert nt_xent(first, second, 0.3).item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_nt_xent_matches_that_of_the_library() -> None:
    first, second = pair()
    labels = torch.arange(4).repeat(2)
    wanted = NTXentLoss(temperature=0.2)(torch.cat([first, second]), labels)
    torch.testing.assert_close(nt_xent(first, second, 0.2), wanted)


def test_nt_xent_is_least_for_identical_views_of_orthogonal_pictures() -> None:
    views = torch.eye(4)
    least = nt_xent(views, views, 0.5)
    assert least.item() == pytest.approx(math.log(1.0 + 6.0 * math.exp(-1.0 / 0.5)), rel=1e-5)
    first, second = pair(dim=4)
    assert nt_xent(views, views + 0.3 * second, 0.5) > least
    assert nt_xent(first, second, 0.5) > least


def test_a_view_whose_twin_is_certain_counts_in_the_mean() -> None:
    first, second = torch.eye(3)[[0, 1]], torch.eye(3)[[0, 2]]
    # exp(-100) is nothing beside 1; the other two views are as far from their twin as from all.
    wanted = (0.0 + 0.0 + math.log(3) + math.log(3)) / 4
    assert nt_xent(first, second, 0.01).item() == pytest.approx(wanted, rel=1e-4)


def test_a_loss_that_is_not_a_number_is_not_hidden() -> None:
    first, second = pair()
    first[1] = float("nan")
    assert not torch.isfinite(nt_xent(first, second, 0.2))
    assert not torch.isfinite(byol_loss(first, second))


def test_byol_s_loss_is_two_minus_two_cosines() -> None:
    first, second = pair()
    cosines = [float(a @ b / (a.norm() * b.norm())) for a, b in zip(first, second, strict=True)]
    assert byol_loss(first, second).item() == pytest.approx(np.mean([2 - 2 * c for c in cosines]))
    distances = [
        (a / a.norm() - b / b.norm()).square().sum() for a, b in zip(first, second, strict=True)
    ]
    torch.testing.assert_close(byol_loss(first, second), torch.stack(distances).mean())
    assert byol_loss(first, 3.0 * first).item() == pytest.approx(0.0, abs=1e-6)
    assert byol_loss(first, -first).item() == pytest.approx(4.0)


def test_byol_compares_each_view_with_what_the_target_makes_of_the_other() -> None:
    byol = build_byol()
    with torch.no_grad():
        byol.target.get_parameter("1.4.bias").add_(1.0)
    first, second = torch.rand(2, 6, 3, 8, 8)
    wanted = byol_loss(byol.predictor(byol.encoder(first)), byol.target(second))
    wanted = wanted + byol_loss(byol.predictor(byol.encoder(second)), byol.target(first))
    loss, projections = byol(first, second)
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(projections[:6], byol.encoder(first))
    torch.testing.assert_close(byol(second, first).loss, loss)


def test_no_gradient_reaches_the_target() -> None:
    byol = build_byol()
    byol(*torch.rand(2, 6, 3, 8, 8)).loss.backward()
    assert all(parameter.grad is None for parameter in byol.target.parameters())
    learning = [*byol.encoder.parameters(), *byol.predictor.parameters()]
    assert all(parameter.grad is not None for parameter in learning)


def test_momentum_rises_to_one_by_a_cosine() -> None:
    momenta = [momentum_at(step, 8, 0.9) for step in range(9)]
    assert momenta[0] == pytest.approx(0.9)
    assert momenta[2] == pytest.approx(1.0 - 0.1 * (math.cos(math.pi / 4) + 1.0) / 2.0)
    assert momenta[4] == pytest.approx(0.95)
    assert momenta[8] == 1.0
    assert momenta == sorted(momenta)


def test_the_target_is_the_average_that_the_momentum_says() -> None:
    byol = build_byol(momentum=0.9)
    with torch.no_grad():
        for parameter in byol.target.parameters():
            parameter.fill_(1.0)
        for parameter in byol.encoder.parameters():
            parameter.fill_(3.0)
    # Half way the momentum is 0.95: 0.95 * 1 + 0.05 * 3, and at the end the target stays.
    for step in (4, 8):
        byol.after_step(step, 8)
        for parameter in byol.target.parameters():
            torch.testing.assert_close(parameter, torch.full_like(parameter, 1.1))
    for parameter in byol.encoder.parameters():
        torch.testing.assert_close(parameter, torch.full_like(parameter, 3.0), atol=0, rtol=0)


def test_the_target_starts_as_the_network() -> None:
    byol = build_byol()
    for name, value in byol.encoder.state_dict().items():
        torch.testing.assert_close(byol.target.state_dict()[name], value, atol=0, rtol=0)


def test_simclr_returns_the_projections_of_both_views() -> None:
    torch.manual_seed(0)
    simclr = SimClr(nn.Flatten(), 12, hidden=8, dim=4, temperature=0.2)
    first, second = torch.rand(2, 5, 3, 2, 2)
    loss, projections = simclr(first, second)
    torch.testing.assert_close(projections, simclr.encoder(torch.cat([first, second])))
    torch.testing.assert_close(loss, nt_xent(projections[:5], projections[5:], 0.2))


@pytest.mark.parametrize(("method", "kind"), [("simclr", SimClr), ("byol", Byol)])
def test_a_method_is_built_by_its_name_around_the_backbone(method: str, kind: type) -> None:
    config = PretrainingConfig.model_validate({"method": method, "hidden": 7, "dim": 3})
    backbone = nn.Flatten()
    built = build_method(backbone, 12, config)
    assert isinstance(built, kind)
    assert built.encoder[0] is backbone
    assert built(*torch.rand(2, 5, 3, 2, 2)).projections.shape == (10, 3)


def test_spread_is_one_in_all_directions_and_zero_after_a_collapse() -> None:
    everywhere = torch.cat([torch.eye(4), -torch.eye(4)]) * torch.arange(1.0, 9.0)[:, None]
    assert spread(everywhere).item() == pytest.approx(1.0)
    collapsed = torch.tensor([[1.0, 2.0, 3.0]]) * torch.tensor([[1.0], [2.0], [5.0]])
    assert spread(collapsed).item() == pytest.approx(0.0, abs=1e-6)
    assert spread(torch.randn(4096, 64)).item() == pytest.approx(1.0, abs=0.02)
