"""The objectives against their definitions as loops."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from text.training.losses import class_loss, contrastive_loss, cosine_logits


def _unit(rows: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed)), dim=1)


def _info_nce_by_hand(queries: Tensor, titles: Tensor, skip: list[list[bool]], t: float) -> float:
    total, count = 0.0, len(queries)
    for i in range(count):
        for anchors, others, skipped in (
            (queries, titles, lambda j, i=i: skip[i][j]),
            (titles, queries, lambda j, i=i: skip[j][i]),
        ):
            scores = {
                j: math.exp(float(anchors[i] @ others[j]) / t)
                for j in range(count)
                if j == i or not skipped(j)
            }
            total -= math.log(scores[i] / sum(scores.values()))
    return total / (2 * count)


def test_contrastive_loss_matches_its_definition() -> None:
    queries, titles = _unit(5, 0), _unit(5, 1)
    skip = torch.rand(5, 5, generator=torch.Generator().manual_seed(2)) < 0.3
    wanted = _info_nce_by_hand(queries, titles, skip.tolist(), 0.2)
    loss = contrastive_loss(queries, titles, skip, temperature=0.2)
    assert loss.item() == pytest.approx(wanted, rel=1e-5)


def test_a_duplicate_is_not_a_negative() -> None:
    titles = _unit(3, 0)[[0, 0, 1]]
    duplicates = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    masked = contrastive_loss(titles, titles, duplicates, temperature=0.01)
    unmasked = contrastive_loss(titles, titles, torch.eye(3, dtype=torch.bool), temperature=0.01)
    assert masked.item() < 1e-3
    assert unmasked.item() > 0.4


def test_a_batch_in_which_everything_answers_has_no_loss() -> None:
    queries = _unit(4, 0).requires_grad_()
    loss = contrastive_loss(
        queries, _unit(4, 1), torch.ones(4, 4, dtype=torch.bool), temperature=0.1
    )
    loss.backward()
    assert loss.item() == 0.0
    assert queries.grad is not None
    assert torch.isfinite(queries.grad).all()


def test_shapes_that_disagree_are_refused() -> None:
    with pytest.raises(ValueError, match=r"also_answers be \(B, B\), got \(4, 8\).* and \(3, 3\)"):
        contrastive_loss(_unit(4, 0), _unit(4, 1), torch.eye(3, dtype=torch.bool), temperature=0.1)


def test_cosine_logits_ignore_the_length_of_a_proxy() -> None:
    embeddings, proxies = _unit(3, 0), _unit(2, 1)
    wanted = [[float(e @ p) / 0.5 for p in proxies] for e in embeddings]
    torch.testing.assert_close(cosine_logits(embeddings, 7 * proxies, 0.5), torch.tensor(wanted))


def test_class_loss_skips_unknown_rows() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([2, -1, 0, -1])
    wanted = -(logits[0].log_softmax(0)[2] + logits[2].log_softmax(0)[0]) / 2
    torch.testing.assert_close(class_loss(logits, labels), wanted)


def test_class_loss_of_unknown_rows_alone_is_zero() -> None:
    assert class_loss(torch.randn(2, 3), torch.tensor([-1, -1])).item() == 0.0
