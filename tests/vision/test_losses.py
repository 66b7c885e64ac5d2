"""Losses against their definitions as loops."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vision.losses import Mix, cosine_logits, masked_cross_entropy, multi_task_loss

LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 3, -1, 1, -1, 2])


def by_hand(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> float:
    losses = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        if label < 0:
            continue
        log_total = math.log(sum(math.exp(value) for value in row))
        spread = sum(log_total - value for value in row) / len(row)
        losses.append((1 - smoothing) * (log_total - row[label]) + smoothing * spread)
    return sum(losses) / len(losses) if losses else 0.0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_masked_cross_entropy_is_its_definition(smoothing: float) -> None:
    got = masked_cross_entropy(LOGITS, LABELS, label_smoothing=smoothing)
    assert got.item() == pytest.approx(by_hand(LOGITS, LABELS, smoothing), rel=1e-5)


def test_an_unknown_label_has_no_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    masked_cross_entropy(logits, LABELS).backward()
    assert logits.grad is not None
    touched = logits.grad.abs().sum(1) > 0
    assert touched.tolist() == (LABELS >= 0).tolist()


def test_a_batch_without_labels_costs_nothing() -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = masked_cross_entropy(logits, torch.full((6,), -1))
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
    partner = torch.arange(5, -1, -1)
    got = multi_task_loss(
        {"a": LOGITS},
        LABELS[:, None],
        weights={},
        label_smoothing=0.0,
        mix=Mix(partner, share=0.7),
    )
    wanted = 0.7 * by_hand(LOGITS, LABELS) + 0.3 * by_hand(LOGITS, LABELS.flip(0))
    assert got.item() == pytest.approx(wanted, rel=1e-5)


def test_cosine_logits_ignore_the_length_of_proxies() -> None:
    generator = torch.Generator().manual_seed(1)
    embeddings = F.normalize(torch.randn(5, 3, generator=generator), dim=1)
    proxies = torch.randn(2, 3, generator=generator)
    got = cosine_logits(embeddings, proxies * 7, 0.1)
    torch.testing.assert_close(got, cosine_logits(embeddings, proxies, 0.1))
    cosine = F.cosine_similarity(embeddings[3], proxies[1], dim=0)
    assert got[3, 1].item() == pytest.approx(cosine.item() / 0.1, rel=1e-5)
