"""Metric losses against their definitions as loops, with and without memory."""

import math
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from vision.config import ObjectiveConfig
from vision.training.metric_losses import MetricObjective, build_metric_objective

DIM, CLASSES = 6, 4
LABELS = torch.tensor([0, 1, 0, 2, 1, 0, 2, 1])

Pairs = list[tuple[int, int]]
Triplets = list[tuple[int, int, int]]


def embed(count: int = len(LABELS), seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, DIM, generator=generator), dim=1)


def build(metric: dict[str, float], **options: Any) -> MetricObjective:
    torch.manual_seed(0)
    config = ObjectiveConfig.model_validate({"metric": metric, **options})
    objective = build_metric_objective(config, n_classes=CLASSES, dim=DIM)
    assert objective is not None
    return objective


def all_triplets(labels: list[int], others: list[int]) -> Triplets:
    return [
        (a, p, n)
        for a, of_a in enumerate(labels)
        for p, of_p in enumerate(others)
        for n, of_n in enumerate(others)
        if a != p and of_a == of_p and of_a != of_n
    ]


def all_pairs(labels: list[int], others: list[int]) -> tuple[Pairs, Pairs]:
    pairs = [(a, b) for a in range(len(labels)) for b in range(len(others)) if a != b]
    same = [(a, b) for a, b in pairs if labels[a] == others[b]]
    return same, [pair for pair in pairs if pair not in same]


def supcon(cosines: Tensor, positives: Pairs, negatives: Pairs) -> float:
    losses = []
    for a in range(len(cosines)):
        own = [cosines[a, p].item() / 0.1 for which, p in positives if which == a]
        rest = [cosines[a, n].item() / 0.1 for which, n in negatives if which == a]
        if own:
            log_total = math.log(sum(math.exp(value) for value in own + rest))
            losses.append(sum(log_total - value for value in own) / len(own))
    return float(np.mean(losses))


def multi_similarity(cosines: Tensor, positives: Pairs, negatives: Pairs) -> float:
    losses = []
    for a in range(len(cosines)):
        own = [math.exp(-2 * (cosines[a, p].item() - 0.5)) for i, p in positives if i == a]
        rest = [math.exp(50 * (cosines[a, n].item() - 0.5)) for i, n in negatives if i == a]
        losses.append(math.log(1 + sum(own)) / 2 + math.log(1 + sum(rest)) / 50)
    return float(np.mean(losses))


def triplet(distances: Tensor, triplets: Triplets) -> float:
    violations = [(distances[a, p] - distances[a, n] + 0.2).item() for a, p, n in triplets]
    return float(np.mean([value for value in violations if value > 0]))


def by_hand(name: str, batch: Tensor, labels: Tensor, others: Tensor, of_others: Tensor) -> float:
    if name == "triplet":
        return triplet(
            torch.cdist(batch, others), all_triplets(labels.tolist(), of_others.tolist())
        )
    loss = {"supcon": supcon, "multi_similarity": multi_similarity}[name]
    return loss(batch @ others.T, *all_pairs(labels.tolist(), of_others.tolist()))


@pytest.mark.parametrize("name", ["supcon", "multi_similarity", "triplet"])
def test_pair_losses_match_their_definitions(name: str) -> None:
    batch = embed()
    got = build({name: 1.0})(batch, LABELS)
    assert got.item() == pytest.approx(by_hand(name, batch, LABELS, batch, LABELS), rel=1e-4)


def test_arcface_adds_its_margin_to_the_angle_of_the_right_class() -> None:
    objective, batch = build({"arcface": 1.0}), embed()
    (directions,) = objective.parameters()
    margin, losses = math.radians(28.6), []
    for row, label in zip(batch, LABELS.tolist(), strict=True):
        cosines = [F.cosine_similarity(row, of_class, dim=0).item() for of_class in directions.T]
        angle = math.acos(cosines[label])
        # Beyond the half turn the cosine would rise again; there it goes on as a straight line.
        turned = math.cos(angle + margin)
        straight = cosines[label] - margin * math.sin(margin)
        cosines[label] = turned if angle + margin <= math.pi else straight
        log_total = math.log(sum(math.exp(64 * (value - 1)) for value in cosines))
        losses.append(log_total - 64 * (cosines[label] - 1))
    assert objective(batch, LABELS).item() == pytest.approx(np.mean(losses), rel=1e-4)


def test_arcface_has_a_gradient_where_an_embedding_is_its_class() -> None:
    objective = build({"arcface": 1.0})
    (directions,) = objective.parameters()
    batch = F.normalize(directions.T.detach(), dim=1)[LABELS].requires_grad_()
    objective(batch, LABELS).backward()
    assert batch.grad is not None
    assert torch.isfinite(batch.grad).all()


def test_proxy_anchor_matches_its_definition() -> None:
    objective, batch = build({"proxy_anchor": 1.0}), embed()
    (proxies,) = objective.parameters()
    cosines = batch @ F.normalize(proxies, dim=1).T
    pulled, pushed = [], []
    for which in range(CLASSES):
        own = [row[which].item() for row, of in zip(cosines, LABELS, strict=True) if of == which]
        rest = [row[which].item() for row, of in zip(cosines, LABELS, strict=True) if of != which]
        pulled.append(math.log(1 + sum(math.exp(-32 * (value - 0.1)) for value in own)))
        pushed.append(math.log(1 + sum(math.exp(32 * (value + 0.1)) for value in rest)))
    # The fourth class has no picture in the batch, and so nothing to pull.
    wanted = sum(pulled) / 3 + sum(pushed) / CLASSES
    assert objective(batch, LABELS).item() == pytest.approx(wanted, rel=1e-4)


def test_losses_are_summed_by_weight() -> None:
    batch = embed()
    got = build({"supcon": 0.5, "arcface": 2.0}, memory=4)(batch, LABELS)
    parts = build({"supcon": 1.0})(batch, LABELS), build({"arcface": 1.0})(batch, LABELS)
    torch.testing.assert_close(got, 0.5 * parts[0] + 2.0 * parts[1])


def test_a_miner_changes_only_the_losses_that_use_one() -> None:
    batch = embed()
    got = build({"supcon": 1.0, "triplet": 1.0}, miner="hard")(batch, LABELS)
    mined = build({"triplet": 1.0}, miner="hard")(batch, LABELS)
    torch.testing.assert_close(got, build({"supcon": 1.0})(batch, LABELS) + mined)


def test_semihard_takes_negatives_between_the_positive_and_the_margin() -> None:
    batch = embed(seed=3)
    distances = torch.cdist(batch, batch)
    chosen = [
        (a, p, n)
        for a, p, n in all_triplets(LABELS.tolist(), LABELS.tolist())
        if 0 < distances[a, n] - distances[a, p] <= 0.2
    ]
    got = build({"triplet": 1.0}, miner="semihard")(batch, LABELS)
    assert got.item() == pytest.approx(triplet(distances, chosen), rel=1e-4)


def test_hard_takes_the_farthest_positive_and_the_nearest_negative() -> None:
    batch = embed(seed=3)
    distances = torch.cdist(batch, batch)
    chosen = []
    for a in range(len(batch)):
        of_a = [(p, n) for i, p, n in all_triplets(LABELS.tolist(), LABELS.tolist()) if i == a]
        farthest = max((p for p, _ in of_a), key=lambda p: distances[a, p].item())
        nearest = min((n for _, n in of_a), key=lambda n: distances[a, n].item())
        chosen.append((a, farthest, nearest))
    got = build({"triplet": 1.0}, miner="hard")(batch, LABELS)
    assert got.item() == pytest.approx(triplet(distances, chosen), rel=1e-4)


def test_multi_similarity_mines_pairs_near_the_hardest_of_the_other_kind() -> None:
    batch = embed(seed=3)
    cosines = batch @ batch.T
    positives, negatives = all_pairs(LABELS.tolist(), LABELS.tolist())
    nearest = {a: max(cosines[i, n].item() for i, n in negatives if i == a) for a in range(8)}
    farthest = {a: min(cosines[i, p].item() for i, p in positives if i == a) for a in range(8)}
    wanted = multi_similarity(
        cosines,
        [(a, p) for a, p in positives if cosines[a, p] - 0.1 < nearest[a]],
        [(a, n) for a, n in negatives if cosines[a, n] + 0.1 > farthest[a]],
    )
    got = build({"multi_similarity": 1.0}, miner="multi_similarity")(batch, LABELS)
    assert got.item() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("name", ["supcon", "multi_similarity", "triplet"])
def test_memory_adds_the_last_embeddings_to_those_of_the_batch(name: str) -> None:
    """Batches of 8, one of them unknown, and of 3 into a memory of 6: it wraps in every way."""
    objective = build({name: 1.0}, memory=6)
    remembered: deque[tuple[Tensor, int]] = deque(maxlen=6)
    for step, count in enumerate([8, 3, 8, 3, 3, 8]):
        # Near each other, so that a picture's pair with itself would count among the triplets.
        batch = F.normalize(embed(count, seed=step) + 1.0, dim=1)
        labels = LABELS[:count].roll(step)
        labels = labels if count == 3 else torch.where(torch.arange(count) == 5, -1, labels)
        batch_known, known = batch[labels >= 0], labels[labels >= 0]
        others = torch.stack([*batch_known, *(embedding for embedding, _ in remembered)])
        of_others = torch.tensor([*known.tolist(), *(label for _, label in remembered)])
        wanted = by_hand(name, batch_known, known, others, of_others)
        assert objective(batch, labels).item() == pytest.approx(wanted, rel=1e-4)
        remembered.extend(zip(batch_known, known.tolist(), strict=True))


@pytest.mark.parametrize("miner", ["multi_similarity", "semihard", "hard"])
@pytest.mark.parametrize("name", ["multi_similarity", "triplet"])
def test_mining_from_memory_never_pairs_a_picture_with_itself(name: str, miner: str) -> None:
    """A single picture whose class is not in the memory has no positive pair to learn from."""
    objective = build({name: 1.0}, miner=miner, memory=8)
    objective(embed(2, seed=1), torch.tensor([0, 0]))
    alone = embed(1, seed=2).requires_grad_()
    loss = objective(alone, torch.tensor([3]))
    loss.backward()
    assert alone.grad is not None
    assert torch.isfinite(alone.grad).all()
    if name == "triplet":
        assert loss.item() == 0.0


def test_a_resumed_memory_has_what_the_interrupted_one_had() -> None:
    first, second = (build({"supcon": 1.0}, memory=10) for _ in range(2))
    for step in range(3):
        first(embed(seed=step), LABELS)
    second.load_state_dict(first.state_dict())
    for step in range(3, 6):
        batch = embed(seed=step)
        assert torch.equal(first(batch, LABELS), second(batch, LABELS))


def test_averaging_the_weights_leaves_the_memory_alone() -> None:
    """Averaged embeddings and labels would not be those of any picture."""
    objective = build({"arcface": 1.0, "supcon": 1.0}, memory=10)
    average = AveragedModel(objective, use_buffers=True)
    for step in range(3):
        objective(embed(seed=step), LABELS)
        average.update_parameters(objective)
    last = torch.cat([embed(seed=1), embed(seed=2)])[-10:]
    copied: Any = average.module
    for one, remembered in ((objective, last), (copied, last[:0])):
        assert one.memory is not None
        torch.testing.assert_close(one.memory.embeddings, remembered)


def test_evaluation_adds_nothing_to_the_memory_and_a_new_memory_is_empty() -> None:
    batch = embed()
    fresh = build({"supcon": 1.0})(batch, LABELS)
    objective = build({"supcon": 1.0}, memory=12).eval()
    objective(embed(seed=1), LABELS)
    torch.testing.assert_close(objective(batch, LABELS), fresh)
    objective.train()(embed(seed=1), LABELS)
    assert not torch.allclose(objective(batch, LABELS), fresh)
    torch.testing.assert_close(build({"supcon": 1.0}, memory=12)(batch, LABELS), fresh)


def test_remembered_embeddings_have_no_gradient() -> None:
    objective, earlier = build({"supcon": 1.0}, memory=12), embed(seed=1).requires_grad_()
    objective(earlier, LABELS)
    objective(embed().requires_grad_(), LABELS).backward()
    assert earlier.grad is None


EVERYTHING = dict.fromkeys(("arcface", "proxy_anchor", "supcon", "triplet"), 1.0)


@pytest.mark.parametrize("memory", [0, 16])
def test_pictures_with_an_unknown_label_are_left_out(memory: int) -> None:
    labels = torch.where(torch.arange(8) % 3 == 0, -1, LABELS)
    batch = embed().requires_grad_()
    loss = build(EVERYTHING, memory=memory)(batch, labels)
    known = labels >= 0
    torch.testing.assert_close(loss, build(EVERYTHING)(batch[known], labels[known]))
    loss.backward()
    assert batch.grad is not None
    assert (batch.grad.abs().sum(dim=1) > 0).tolist() == known.tolist()


@pytest.mark.parametrize("miner", ["none", "multi_similarity", "semihard", "hard"])
@pytest.mark.parametrize("memory", [0, 16])
def test_nothing_to_compare_costs_nothing(miner: str, memory: int) -> None:
    metric = {"arcface": 1.0, "supcon": 1.0, "multi_similarity": 1.0, "triplet": 1.0}
    objective = build(metric, miner=miner, memory=memory)
    batch = embed().requires_grad_()
    loss = objective(batch, torch.full((8,), -1))
    loss.backward()
    assert loss.item() == 0.0
    assert batch.grad is not None
    assert batch.grad.abs().sum() == 0.0
    assert all(own.grad is not None and own.grad.abs().sum() == 0 for own in objective.parameters())
    pairs_only = build({"supcon": 1.0, "triplet": 1.0, "multi_similarity": 1.0}, memory=memory)
    assert pairs_only(embed(1), torch.tensor([2])).item() == 0.0


def test_distances_are_computed_in_float32_under_bfloat16() -> None:
    batch, everything = embed(), {**EVERYTHING, "multi_similarity": 1.0}
    wanted = build(everything, memory=8)(batch, LABELS)
    with torch.autocast("cpu", torch.bfloat16):
        got = build(everything, memory=8)(batch, LABELS)
    assert torch.equal(got, wanted)


def test_without_a_metric_there_is_no_objective() -> None:
    assert build_metric_objective(ObjectiveConfig(), n_classes=CLASSES, dim=DIM) is None


def test_a_miner_or_memory_without_a_use_is_an_error() -> None:
    with pytest.raises(
        ValueError,
        match=r"miner = 'hard' needs one of multi_similarity, triplet in objective.metric, "
        r"got arcface, supcon; name one or leave miner out",
    ):
        build({"arcface": 1.0, "supcon": 1.0}, miner="hard")
    with pytest.raises(ValueError, match=r"memory = 64 needs one of supcon, .*, got proxy_anchor"):
        build({"proxy_anchor": 1.0}, memory=64)
    with pytest.raises(ValueError, match=r"memory = 64 needs one of .*, got none"):
        build({}, memory=64)
    with pytest.raises(ValueError, match=r"\(B, D\) and \(B,\), got \(8, 6\) and \(7,\)"):
        build({"arcface": 1.0})(embed(), LABELS[:7])
