"""Losses against their definitions as loops."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vision.training.losses import (
    Mix,
    blended_loss,
    cosine_logits,
    masked_cross_entropy,
    masked_focal_loss,
    multi_task_loss,
)

LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 3, -1, 1, -1, 2])
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 0.25])


def by_hand(
    logits: Tensor,
    labels: Tensor,
    smoothing: float = 0.0,
    gamma: float = 0.0,
    weights: Tensor | None = None,
) -> float:
    losses: list[float] = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        if label < 0:
            continue
        total = sum(math.exp(value) for value in row)
        for which, value in enumerate(row):
            p = math.exp(value) / total
            share = (1 - smoothing) * (which == label) + smoothing / len(row)
            weight = 1.0 if weights is None else weights[which].item()
            losses.append(-share * weight * (1 - p) ** gamma * math.log(p))
    return sum(losses) / max(1, int((labels >= 0).sum()))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_masked_cross_entropy_matches_its_definition(
    smoothing: float, weights: Tensor | None
) -> None:
    got = masked_cross_entropy(LOGITS, LABELS, label_smoothing=smoothing, class_weights=weights)
    wanted = by_hand(LOGITS, LABELS, smoothing, weights=weights)
    assert got.item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_masked_focal_loss_matches_its_definition(
    smoothing: float, weights: Tensor | None, gamma: float
) -> None:
    got = masked_focal_loss(
        LOGITS, LABELS, gamma=gamma, label_smoothing=smoothing, class_weights=weights
    )
    wanted = by_hand(LOGITS, LABELS, smoothing, gamma, weights)
    assert got.item() == pytest.approx(wanted, rel=1e-5)


def test_focal_loss_lowers_easy_pictures_more_than_hard_ones() -> None:
    sure, doubtful = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.2, 0.0]])
    label = torch.tensor([0])
    muted = [
        masked_focal_loss(logits, label, gamma=2.0) / masked_cross_entropy(logits, label)
        for logits in (sure, doubtful)
    ]
    assert muted[0] < 0.001 < 0.1 < muted[1]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_has_a_gradient_at_a_probability_of_one(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0, -200.0]]).requires_grad_()
    masked_focal_loss(logits, torch.tensor([0]), gamma=gamma, label_smoothing=0.1).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("gamma", [None, 2.0])
def test_an_unknown_label_has_no_gradient(gamma: float | None) -> None:
    logits = LOGITS.clone().requires_grad_()
    if gamma is None:
        masked_cross_entropy(logits, LABELS).backward()
    else:
        masked_focal_loss(logits, LABELS, gamma=gamma).backward()
    assert logits.grad is not None
    touched = logits.grad.abs().sum(1) > 0
    assert touched.tolist() == (LABELS >= 0).tolist()


@pytest.mark.parametrize("gamma", [None, 2.0])
def test_a_batch_without_labels_costs_nothing(gamma: float | None) -> None:
    logits, labels = LOGITS.clone().requires_grad_(), torch.full((6,), -1)
    loss = (
        masked_cross_entropy(logits, labels)
        if gamma is None
        else masked_focal_loss(logits, labels, gamma=gamma)
    )
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0.0


def test_targets_are_averaged_by_weight() -> None:
    logits = {"a": LOGITS, "b": LOGITS * 2}
    labels = torch.stack([LABELS, LABELS.flip(0)], dim=1)
    got = multi_task_loss(logits, labels, weights={"b": 3.0}, label_smoothing=0.0)
    wanted = (by_hand(LOGITS, LABELS) + 3 * by_hand(LOGITS * 2, LABELS.flip(0))) / 4
    assert got.item() == pytest.approx(wanted, rel=1e-5)


def test_blended_pictures_are_scored_against_both_labels() -> None:
    mix = Mix(torch.arange(5, -1, -1), share=0.7)
    wanted = 0.7 * by_hand(LOGITS, LABELS) + 0.3 * by_hand(LOGITS, LABELS.flip(0))
    got = multi_task_loss({"a": LOGITS}, LABELS[:, None], weights={}, label_smoothing=0.0, mix=mix)
    assert got.item() == pytest.approx(wanted, rel=1e-5)
    alone = blended_loss(masked_cross_entropy, LOGITS, LABELS, mix)
    assert alone.item() == pytest.approx(wanted, rel=1e-5)


def test_cosine_logits_ignore_the_length_of_proxies() -> None:
    generator = torch.Generator().manual_seed(1)
    embeddings = F.normalize(torch.randn(5, 3, generator=generator), dim=1)
    proxies = torch.randn(2, 3, generator=generator)
    got = cosine_logits(embeddings, proxies * 7, 0.1)
    torch.testing.assert_close(got, cosine_logits(embeddings, proxies, 0.1))
    cosine = F.cosine_similarity(embeddings[3], proxies[1], dim=0)
    assert got[3, 1].item() == pytest.approx(cosine.item() / 0.1, rel=1e-5)
