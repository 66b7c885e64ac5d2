import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.models.losses import (
    catalogue_softmax_loss,
    info_nce,
    listwise_softmax_loss,
    sampled_softmax_loss,
    similarity_distillation_loss,
)

TEMPERATURE = 0.2


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def info_nce_by_definition(queries: Tensor, keys: Tensor, groups: list[int]) -> float:
    total = 0.0
    for one, other in ((queries, keys), (keys, queries)):
        for i in range(len(one)):
            allowed = [j for j in range(len(one)) if j == i or groups[j] != groups[i]]
            sums = sum(math.exp(float(one[i] @ other[j]) / TEMPERATURE) for j in allowed)
            total += math.log(sums) - float(one[i] @ other[i]) / TEMPERATURE
    return total / (2 * len(queries))


@pytest.mark.parametrize("groups", [[0, 1, 2, 3, 4], [0, 1, 0, 2, 1], [0, 0, 0, 0, 0]])
def test_info_nce_equals_its_definition(groups: list[int]) -> None:
    queries, keys = unit(5, 8), unit(5, 8, seed=1)
    loss = info_nce(queries, keys, torch.tensor(groups), temperature=TEMPERATURE)
    assert float(loss) == pytest.approx(info_nce_by_definition(queries, keys, groups), abs=1e-5)


def test_a_duplicate_is_not_a_negative() -> None:
    queries, groups = unit(3, 8), torch.tensor([0, 0, 1])
    apart = info_nce(queries, queries, torch.arange(3), temperature=TEMPERATURE)
    together = info_nce(queries, queries, groups, temperature=TEMPERATURE)
    assert together < apart


def test_info_nce_names_the_shapes_that_disagree() -> None:
    with pytest.raises(ValueError, match=r"queries and keys must both be \(B, D\).*\(4, 8\)"):
        info_nce(unit(3, 8), unit(4, 8), torch.arange(3), temperature=TEMPERATURE)


def test_similarity_distillation_equals_its_definition() -> None:
    student, teacher = unit(4, 8), unit(4, 5, seed=1)
    total = 0.0
    for i in range(4):
        others = [j for j in range(4) if j != i]
        sides = [
            [math.exp(float(side[i] @ side[j]) / TEMPERATURE) for j in others]
            for side in (student, teacher)
        ]
        got, wanted = ([value / sum(values) for value in values] for values in sides)
        total += sum(w * math.log(w / g) for w, g in zip(wanted, got, strict=True))
    loss = similarity_distillation_loss(student, teacher, temperature=TEMPERATURE)
    assert float(loss) == pytest.approx(total / 4, abs=1e-5)


def test_a_rotated_copy_of_the_teacher_has_no_loss() -> None:
    teacher = unit(6, 8)
    turned = teacher @ torch.linalg.qr(unit(8, 8, seed=1))[0]
    loss = similarity_distillation_loss(turned, teacher, temperature=TEMPERATURE)
    assert float(loss) == pytest.approx(0.0, abs=1e-6)


def test_two_items_have_no_distillation_loss() -> None:
    loss = similarity_distillation_loss(unit(2, 8), unit(2, 8, seed=1), temperature=TEMPERATURE)
    assert float(loss) == 0.0


def test_similarity_distillation_names_the_rows_that_disagree() -> None:
    with pytest.raises(ValueError, match="one row per item, got 3 and 4"):
        similarity_distillation_loss(unit(3, 8), unit(4, 8), temperature=TEMPERATURE)


def test_catalogue_softmax_is_the_weighted_mean_of_minus_log_p() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    targets, weights = torch.tensor([[1, 0], [2, 2]]), torch.tensor([[1.0, 0.5], [2.0, 0.0]])
    first = math.log(math.exp(1) + math.exp(2) + 1)
    wanted = (1.0 * (first - 2) + 0.5 * (first - 1) + 2.0 * math.log(3)) / 3.5
    loss = catalogue_softmax_loss(logits, targets, weights)
    assert float(loss) == pytest.approx(wanted, abs=1e-6)


def test_targets_without_weight_give_zero_and_not_nan() -> None:
    loss = catalogue_softmax_loss(torch.zeros(2, 3), torch.zeros(2, 1).long(), torch.zeros(2, 1))
    assert float(loss) == 0.0


def test_sampled_softmax_with_every_other_item_is_the_catalogue_softmax() -> None:
    logits, weights = 3 * unit(4, 30), torch.ones(4, 1)
    targets = torch.tensor([[0], [1], [2], [3]])
    others = torch.stack([torch.cat([logits[i, :i], logits[i, i + 1 :]]) for i in range(4)])
    sampled = sampled_softmax_loss(logits.gather(1, targets), others, weights, n_items=29)
    torch.testing.assert_close(sampled, catalogue_softmax_loss(logits, targets, weights))


def test_sampled_softmax_from_few_negatives_is_near_that_from_all() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 20_000, generator=generator)
    positive, weights = torch.tensor([[1.0]]), torch.ones(1, 1)
    drawn = logits[:, torch.randint(20_000, (2_000,), generator=generator)]
    whole = sampled_softmax_loss(positive, logits, weights, n_items=20_000)
    sample = sampled_softmax_loss(positive, drawn, weights, n_items=20_000)
    assert float(sample) == pytest.approx(float(whole), abs=0.1)


def test_listwise_loss_is_cross_entropy_with_the_shares_of_relevance() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 5.0]])
    relevance = torch.tensor([[3.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    first = math.log(math.exp(2) + math.exp(1) + 1)
    wanted = (0.75 * (first - 2) + 0.25 * (first - 1) + math.log(2)) / 2
    loss = listwise_softmax_loss(logits, relevance, mask)
    assert float(loss) == pytest.approx(wanted, abs=1e-6)


def test_masked_entries_cannot_change_the_listwise_loss() -> None:
    logits, relevance = torch.randn(2, 4), torch.tensor([[1.0, 0.0, 0.0, 0.0]] * 2)
    mask = torch.tensor([[True, True, False, False]] * 2)
    hidden = ~mask
    changed = listwise_softmax_loss(
        logits.masked_fill(hidden, torch.nan), relevance.masked_fill(hidden, torch.nan), mask
    )
    torch.testing.assert_close(changed, listwise_softmax_loss(logits, relevance, mask))


def test_lists_without_anything_relevant_do_not_count() -> None:
    logits, mask = torch.randn(3, 4), torch.ones(3, 4, dtype=torch.bool)
    mask[2] = False
    relevance = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0] * 4, [1.0] * 4])
    loss = listwise_softmax_loss(logits, relevance, mask)
    torch.testing.assert_close(loss, listwise_softmax_loss(logits[:1], relevance[:1], mask[:1]))


def test_a_batch_without_anything_relevant_has_zero_gradients() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    mask = torch.tensor([[True, True, True], [False, False, False]])
    loss = listwise_softmax_loss(logits, torch.zeros(2, 3), mask)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert torch.equal(logits.grad, torch.zeros(2, 3))  # type: ignore[arg-type]


def test_listwise_loss_names_the_shapes_that_disagree() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\), \(2, 3\) and \(2, 4\)"):
        listwise_softmax_loss(
            torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2, 4, dtype=torch.bool)
        )
