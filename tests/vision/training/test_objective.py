"""The heads' objective: every loss by name, priors, class weights, weights of the targets."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vision.config import VisionConfig
from vision.training.losses import Mix, masked_cross_entropy, masked_focal_loss, multi_task_loss
from vision.training.objective import (
    ClassificationObjective,
    UncertaintyWeights,
    build_objective,
    log_priors,
)

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = {
    "colour": torch.randn(6, 3, generator=GENERATOR),
    "side.of it": torch.randn(6, 2, generator=GENERATOR),
}
LABELS = torch.tensor([[0, 1], [2, -1], [-1, 0], [0, 0], [0, -1], [1, 1]])
COUNTS = {"colour": np.array([90, 9, 1]), "side.of it": np.array([50, 50])}
MIX = Mix(torch.arange(5, -1, -1), share=0.6)


def build(objective: dict[str, Any], **changes: Any) -> ClassificationObjective:
    config = VisionConfig.model_validate({"objective": objective, **changes})
    return build_objective(config, COUNTS)


@pytest.mark.parametrize("mix", [None, MIX])
def test_by_default_it_is_the_weighted_mean_of_cross_entropies(mix: Mix | None) -> None:
    weights = {"colour": 3.0}
    got = build({}, target_weights=weights)(LOGITS, LABELS, mix)
    wanted = multi_task_loss(LOGITS, LABELS, weights=weights, label_smoothing=0.1, mix=mix)
    torch.testing.assert_close(got, wanted)


def test_focal_loss_is_chosen_by_name() -> None:
    got = build({"classifier": "focal", "focal_gamma": 1.5})(LOGITS, LABELS, None)
    losses = [
        masked_focal_loss(logits, LABELS[:, column], gamma=1.5, label_smoothing=0.1)
        for column, logits in enumerate(LOGITS.values())
    ]
    torch.testing.assert_close(got, torch.stack(losses).mean())


def test_adjusted_logits_hold_the_log_priors_in_training() -> None:
    objective = {"classifier": "logit_adjusted", "logit_adjustment": 0.5}
    got = build(objective, label_smoothing=0.0)(LOGITS, LABELS, None)
    shift = 0.5 * torch.tensor([math.log(0.9), math.log(0.09), math.log(0.01)])
    first = masked_cross_entropy(LOGITS["colour"] + shift, LABELS[:, 0])
    second = masked_cross_entropy(LOGITS["side.of it"], LABELS[:, 1])  # equal priors change nothing
    torch.testing.assert_close(got, (first + second) / 2)


def test_adjusted_logits_predict_as_if_classes_were_equally_frequent() -> None:
    """One feature-less picture of each count: the best constant logits are then all the same."""
    labels = torch.tensor([0] * 90 + [1] * 9 + [2])[:, None]
    logits = torch.zeros(3, requires_grad=True)
    config = VisionConfig.model_validate(
        {"objective": {"classifier": "logit_adjusted"}, "label_smoothing": 0.0}
    )
    objective = build_objective(config, {"colour": COUNTS["colour"]})
    objective({"colour": logits.expand(100, 3)}, labels, None).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.zeros(3), atol=1e-6, rtol=0)


@pytest.mark.parametrize("counts", [[5, 0, 3], [0, 0, 0]])
def test_a_class_without_pictures_has_a_finite_prior(counts: list[int]) -> None:
    priors = log_priors(np.array(counts))
    assert torch.isfinite(priors).all()
    assert priors.argmin() == 1 or counts == [0, 0, 0]
    assert priors.exp().sum() == pytest.approx(1.0)


def test_class_weights_follow_the_counts() -> None:
    got = build({"class_weights": "balanced"}, label_smoothing=0.0)(LOGITS, LABELS, None)
    # 100 pictures in 3 classes: the mean over pictures of 100 / (3 count) is 1.
    weights = torch.tensor([100 / 270, 100 / 27, 100 / 3])
    rows = F.cross_entropy(LOGITS["colour"], LABELS[:, 0].clamp(min=0), reduction="none")
    known = LABELS[:, 0] >= 0
    first = (weights[LABELS[:, 0].clamp(min=0)] * rows)[known].mean()
    second = masked_cross_entropy(LOGITS["side.of it"], LABELS[:, 1])
    torch.testing.assert_close(got, (first + second) / 2)


def test_constants_from_the_labels_are_moved_but_not_saved() -> None:
    objective = build({"class_weights": "balanced", "classifier": "logit_adjusted"})
    assert objective.state_dict() == {}
    assert {buffer.dtype for buffer in objective.double().buffers()} == {torch.float64}


@pytest.mark.parametrize("target_weights", [{}, {"colour": 3.0}])
def test_learned_weights_begin_at_the_fixed_ones(target_weights: dict[str, float]) -> None:
    learned = build({"target_weights": "learned"}, target_weights=target_weights)
    fixed = build({}, target_weights=target_weights)
    assert isinstance(learned.weighting, UncertaintyWeights)
    charge = 0.5 * learned.weighting.log_variances.mean()
    got = learned(LOGITS, LABELS, MIX) - charge
    torch.testing.assert_close(got, fixed(LOGITS, LABELS, MIX))


def test_a_learned_variance_comes_to_rest_at_twice_the_loss() -> None:
    """The minimum of loss / v + log(v) / 2 is at v = 2 loss."""
    weighting = UncertaintyWeights(torch.ones(2))
    losses, labelled = torch.tensor([0.2, 3.0]), torch.tensor([True, True])
    optimizer = torch.optim.SGD(weighting.parameters(), lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        weighting(losses, labelled).backward()
        optimizer.step()
    torch.testing.assert_close(weighting.log_variances.exp(), 2 * losses, atol=1e-3, rtol=1e-3)


def test_a_target_without_labels_leaves_its_variance_alone() -> None:
    objective = build({"target_weights": "learned"})
    labels = LABELS.clone()
    labels[:, 1] = -1
    objective(LOGITS, labels, None).backward()
    assert isinstance(objective.weighting, UncertaintyWeights)
    grad = objective.weighting.log_variances.grad
    assert grad is not None
    assert grad[0] != 0
    assert grad[1] == 0


def test_weights_and_labels_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(ValueError, match="target_weights must leave one above 0"):
        build({}, target_weights={"colour": 0.0, "side.of it": 0.0})
    with pytest.raises(ValueError, match="must be above 0 where they are learned"):
        build({"target_weights": "learned"}, target_weights={"colour": 0.0})
    with pytest.raises(ValueError, match=r"shape \(B, 2\) for the targets colour, side.of it, got"):
        build({})(LOGITS, LABELS[:, :1], None)
