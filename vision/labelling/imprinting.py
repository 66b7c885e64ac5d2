"""One more class in a trained head, from a few pictures: a new row beside those that it learned."""

import copy
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import expit, logsumexp
from torch import nn

from vision.arrays import Bools, Doubles, Floats, Ints
from vision.batches import ImageSource, prepared_batches
from vision.dataset import UNKNOWN
from vision.errors import InvalidArgumentError, TrainingError
from vision.squares import ReadSquare, read_square
from vision.tower import VisionTower

BATCH_SIZE = 64
SHOTS = 10  # pictures of a class, beyond which more change little
# Chosen on the val split of Grocery Store. The reference itself would choose too little: it is what
# the covariance is computed from.
SHRINKAGE = 0.6
MAX_CLASSES = 200  # left out one at a time to fit the scale
# Keeps the scale finite where prototypes never err on the held-out pictures.
PENALTY = 1e-3


class LabelledFeatures(NamedTuple):
    """Features of the backbone for pictures with labels."""

    features: Floats  # (n, F)
    labels: Ints  # class indices (n,), -1 where unknown


class Reference(NamedTuple):
    """What puts a new class of one target on the scale of the classes that the head learned."""

    learned: LabelledFeatures  # some pictures of each class that the tower was trained on
    held_out: LabelledFeatures  # pictures that it was not trained on


class Row(NamedTuple):
    """The part of a linear head that belongs to one class."""

    weight: Doubles  # (F,)
    bias: float


class Scale(NamedTuple):
    """How a prototype of some pictures becomes a row beside those that a head has learned."""

    mean: Doubles  # of all learned pictures (F,)
    covariance: tuple[Doubles, bool]  # within classes, shrunk, as ``cho_factor`` factorises it
    slope: float  # from scores to logits
    offset: float


@torch.inference_mode()
def compute_features(
    tower: VisionTower,
    images: Iterable[ImageSource],
    *,
    device: torch.device | str | None = None,
    progress: bool = False,
    read: ReadSquare = read_square,
) -> Floats:
    """Return the features of the backbone, which the heads read, float32 (n, F).

    Args:
        tower: Tower in evaluation mode.
        images: PIL images, file contents or paths.
        device: Device to move the tower to and to compute on. None leaves the tower in place.
        progress: Whether to show Lightning's progress bar.
        read: Reader of the images that are paths.

    Raises:
        ImageError: If an image cannot be read. The message has its position.
    """
    if device is not None:
        tower.to(device)
    batches = prepared_batches(
        images, tower.preprocess, batch_size=BATCH_SIZE, progress=progress, read=read
    )
    features = [tower.backbone(batch.to(tower.device)).float().cpu().numpy() for batch in batches]
    parts: Any = tower.project
    empty = np.zeros((0, parts[0].in_features), dtype=np.float32)
    return np.concatenate([empty, *features])


def with_class(
    tower: VisionTower,
    target: str,
    name: str,
    shots: Floats,
    reference: Reference,
    *,
    temperature: float = 1.0,
) -> VisionTower:
    """Return a copy of the tower that knows one more class, the last one of its target.

    Args:
        tower: Trained tower; it is not changed.
        target: Target that the class belongs to.
        name: Name of the class.
        shots: Features of the new class's pictures (k, F), from ``compute_features``.
        reference: Pictures with labels of the target.
        temperature: Divisor of the target's logits at which its probabilities are used.

    Raises:
        InvalidArgumentError: If the tower lacks the target, the name is taken, or ``shots`` is
            empty.
        TrainingError: If the reference cannot set the scale.
    """
    if target not in tower.classes:
        raise InvalidArgumentError(
            f"target must be one of {', '.join(tower.classes) or '(none)'}, got {target!r}"
        )
    if name in tower.classes[target]:
        raise InvalidArgumentError(f"name must be new, got {name!r}, which is a class of {target}")
    result = copy.deepcopy(tower)
    position = list(tower.classes).index(target)
    old = result.heads[position]
    assert isinstance(old, nn.Linear), "the heads of a tower are linear"
    weights, biases = (value.detach().cpu().double().numpy() for value in (old.weight, old.bias))
    row = imprint(weights / temperature, biases / temperature, shots, reference)
    new = nn.Linear(old.in_features, old.out_features + 1).to(old.weight)
    with torch.no_grad():
        weight = torch.from_numpy(temperature * row.weight).to(old.weight)
        new.weight.copy_(torch.cat([old.weight, weight[None]]))
        new.bias.copy_(torch.cat([old.bias, old.bias.new_tensor([temperature * row.bias])]))
    result.heads[position] = new
    result.classes = {**tower.classes, target: (*tower.classes[target], name)}
    return result.eval()


def imprint(weights: Doubles, biases: Doubles, shots: Floats, reference: Reference) -> Row:
    """Return the row of a new class beside the rows that a head has learned.

    Weight imprinting (Qi et al., 2018, https://arxiv.org/abs/1712.07136) sets the row to the mean
    of the class's pictures. This differs in two ways, since a head that was not trained on cosines
    has a scale of its own. The mean is compared as in linear discriminant analysis, with the
    covariance within the learned classes. And the score is made a logit by :func:`fit_scale`.

    Args:
        weights: Rows of the learned classes (C, F).
        biases: Their biases (C,).
        shots: Features of the new class's pictures (k, F).
        reference: Pictures with labels of the same classes.

    Raises:
        InvalidArgumentError: If ``shots`` is empty.
        TrainingError: As for :func:`fit_scale`.
    """
    if not len(shots):
        raise InvalidArgumentError("shots must be at least one picture, got none")
    return make_row(shots, fit_scale(weights, biases, reference, n_shots=len(shots)))


def make_row(shots: Floats, scale: Scale) -> Row:
    """Return the row of a class from features of its pictures (k, F), on a fitted scale."""
    prototype = shots.astype(np.float64).mean(axis=0)[None]
    directions, constants = _discriminants(scale.mean, scale.covariance, prototype)
    bias = scale.slope * constants[0] + scale.offset
    return Row(scale.slope * directions[0], float(bias))


def fit_scale(weights: Doubles, biases: Doubles, reference: Reference, *, n_shots: int) -> Scale:
    """Return the scale of new rows, fitted on the classes that a head has learned.

    Each learned class is replaced by the prototype of ``n_shots`` of its own pictures. Slope and
    offset give the held-out pictures' labels the highest likelihood. A new class therefore counts
    as one that is as frequent as the others.

    Args:
        weights: Rows of the learned classes (C, F).
        biases: Their biases (C,).
        reference: Pictures with labels of the same classes.
        n_shots: Number of pictures that a new row is made from.

    Raises:
        TrainingError: If fewer than two classes have held-out pictures, or none of these was
            learned.
    """
    held_out, learned = _known(reference.held_out), _known(reference.learned)
    both = np.intersect1d(learned.labels, held_out.labels)
    n_seen = len(np.unique(held_out.labels))
    if len(both) == 0 or n_seen < 2:
        raise TrainingError(
            "a new class needs held-out pictures of at least two of the others, one of them with "
            f"pictures that were learned, got held-out pictures of {n_seen}"
        )
    features = held_out.features.astype(np.float64)
    logits = features @ weights.T + biases
    classes = both[:: -(-len(both) // MAX_CLASSES)]  # S of them
    mean, covariance = _measure(learned)
    prototypes = _draw_prototypes(learned, classes, n_shots)
    directions, constants = _discriminants(mean, covariance, prototypes)
    own = held_out.labels[:, None] == classes
    scores = features @ directions.T + constants  # (m, S)
    return Scale(mean, covariance, *_fit_line(scores, own, _rivals(logits, classes)))


def _known(pictures: LabelledFeatures) -> LabelledFeatures:
    known = pictures.labels != UNKNOWN
    return LabelledFeatures(pictures.features[known], pictures.labels[known])


def _measure(learned: LabelledFeatures) -> tuple[Doubles, tuple[Doubles, bool]]:
    """Return the mean of all pictures (F,) and the factorised covariance within classes (F, F).

    The covariance is shrunk towards a multiple of the identity.
    """
    features = learned.features.astype(np.float64)
    _, rows, counts = np.unique(learned.labels, return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), features.shape[1]))
    np.add.at(means, rows, features)
    means /= counts[:, None]
    residuals = features - means[rows]
    freedom = len(features) - len(counts)
    mean = features.mean(axis=0)
    if freedom == 0:  # one picture of each class: the variation between classes has to do
        residuals, freedom = features - mean, len(features)
    covariance = (1.0 - SHRINKAGE) * (residuals.T @ residuals) / freedom
    level = max(float(np.trace(covariance)) / ((1.0 - SHRINKAGE) * len(mean)), 1e-12)
    covariance[np.diag_indices_from(covariance)] += SHRINKAGE * level
    return mean, cho_factor(covariance)


def _draw_prototypes(learned: LabelledFeatures, classes: Ints, count: int) -> Doubles:
    """Return the mean of up to ``count`` pictures of each class (S, F)."""
    rng = np.random.default_rng(0)
    chosen = [rng.permutation(np.flatnonzero(learned.labels == one))[:count] for one in classes]
    return np.stack([learned.features[rows].astype(np.float64).mean(axis=0) for rows in chosen])


def _discriminants(
    mean: Doubles, covariance: tuple[Doubles, bool], prototypes: Doubles
) -> tuple[Doubles, Doubles]:
    """Return directions (S, F) and constants (S,) whose score is the log-odds against the mean.

    The score is that of a class around the prototype against one around the mean of all pictures,
    both normal with the same covariance.
    """
    directions: Doubles = cho_solve(covariance, (prototypes - mean).T).T
    constants = -((prototypes + mean) * directions).sum(axis=1) / 2.0
    return directions, constants


def _rivals(logits: Doubles, classes: Ints) -> Doubles:
    """Return the logit of "another class" for each picture and each of the classes (m, S)."""
    others = [logsumexp(np.delete(logits, one, axis=1), axis=1) for one in classes]
    return np.stack(others, axis=1)


def _fit_line(scores: Doubles, own: Bools, rivals: Doubles) -> tuple[float, float]:
    """Return the slope and the offset that make the held-out labels most probable.

    Args:
        scores: Score of each class's prototype on each held-out picture (m, S).
        own: Whether the picture is of the class (m, S).
        rivals: Result of ``_rivals``, (m, S).
    """
    centre, spread = float(scores.mean()), max(float(scores.std()), 1e-12)
    # In units of the other logits, so that the penalty is as strong for a sure head as for others.
    level, width = float(rivals.mean()), max(float(rivals.std()), 1.0)
    unit = width * (scores - centre) / spread

    def cost(values: Doubles) -> tuple[float, Doubles]:
        # Which of the other classes a picture shows is no matter for the two: convex in both.
        odds = values[0] * unit + width * values[1] + level - rivals
        wrong = expit(odds) - own
        loss = np.logaddexp(0.0, odds) - np.where(own, odds, 0.0)
        gradient = np.array([(wrong * unit).mean() + PENALTY * values[0], width * wrong.mean()])
        return float(loss.mean() + PENALTY / 2.0 * values[0] ** 2), gradient

    found = minimize(
        cost, np.array([0.5, -1.0]), jac=True, method="L-BFGS-B", bounds=[(0.0, None), (None, None)]
    )
    slope = width * float(found.x[0]) / spread
    return slope, width * float(found.x[1]) + level - slope * centre
