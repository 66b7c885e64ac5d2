"""Fit a calibration on labelled photos: weights by likelihood, thresholds by cross-fitting."""

from math import log
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.data.arrays import Ints
from recsys.errors import InvalidArgumentError
from recsys.identification.calibration import Calibration, OperatingPoint, utilities
from recsys.identification.evidence import SOURCES, Evidence
from recsys.identification.groups import choose, likely_sets

N_FOLDS = 5
N_BINS = 15
MAX_CELLS = 10_000_000  # photos times products that fit in memory while weights are fitted
JUST_ADDED_SHARE = 0.1  # of the known photos, shown as if their product had only just been added
_UNKNOWN_DEVIATION = 10.0
_THRESHOLDS = torch.arange(0.5, 0.995, 0.01, dtype=torch.float64)


def take_evenly(photos: Ints, *, n_items: int, max_cells: int = MAX_CELLS) -> Ints:
    """Return a sample of the photos, evenly spaced, that is small enough to fit on.

    Args:
        photos: Indices of the photos.
        n_items: Number of products that each photo is compared with.
        max_cells: Maximum number of photos times products, but at least one photo per fold.
    """
    at_most = max(N_FOLDS, max_cells // n_items)
    return photos[np.linspace(0, len(photos) - 1, min(at_most, len(photos))).astype(np.int64)]


def fit_calibration(
    evidence: Evidence,
    rows: Tensor,
    ancestors: Tensor,
    *,
    precision: float,
    unknown_share: float,
    unmet: Evidence | None = None,
) -> Calibration:
    """Return a calibration fitted on photos that no network was trained on.

    Each photo is shown three times, with weights that add up to one: as it is; with its product
    removed from the catalogue; and with its product just added, without labelled photos or a class
    of the head. Thresholds are chosen on probabilities from weights fitted on other products.

    A network that was trained on a product separates it from similar ones even after it is removed,
    and does so better than for a product it never saw. The last two views therefore come from
    ``unmet``.

    Args:
        evidence: Evidence of B photos against the whole catalogue, N >= 2.
        rows: Item row of the product on each photo, int64 (B,).
        ancestors: Category of each product by level, int64 (N, L); -1 where the path has
            ended.
        precision: Wanted precision of the answers.
        unknown_share: Share of photos expected to show something outside the catalogue.
        unmet: Evidence of the same photos, each from networks that were not trained on its product;
            ``evidence`` itself if None.

    Raises:
        InvalidArgumentError: If photos are missing, or fewer than two products, or if ``precision``
            or ``unknown_share`` is not between 0 and 1.
    """
    _check(len(rows), evidence.values.shape[1], precision=precision, unknown_share=unknown_share)
    views = _views(evidence, evidence if unmet is None else unmet, rows, unknown_share)
    weights, pivots, unknown = _fit(views)
    found = _cross_fitted(views)
    return Calibration(
        weights=tuple(weights.tolist()),
        pivots=tuple(pivots.tolist()),
        unknown=float(unknown),
        known=_choose_point(_known_outcomes(found), precision, unknown_share),
        named=_choose_point(_named_outcomes(found, rows, ancestors), precision, unknown_share),
        wanted_precision=precision,
        unknown_share=unknown_share,
        error=_error(found, rows, unknown_share),
        n_photos=len(rows),
    )


def cross_fitted_losses(
    evidence: Evidence, rows: Tensor, *, unknown_share: float, unmet: Evidence
) -> Tensor:
    """Return the negative log-likelihood of each photo (B,), by which evidence can be compared.

    Probabilities are from weights that were fitted on other products. A photo counts as it is, and
    with its product removed. Arguments are those of ``fit_calibration``.
    """
    views = _views(evidence, unmet, rows, unknown_share)
    losses = torch.zeros(len(rows), dtype=torch.float64)
    for view, found in zip(views, _cross_fitted(views), strict=False):
        own = found[torch.arange(len(rows)), view.targets]
        losses -= view.weights * own.clamp(min=1e-12).log()  # 0 for a product without any source
    return losses


def _check(n_photos: int, n_items: int, **shares: float) -> None:
    if n_photos == 0 or n_items < 2:
        raise InvalidArgumentError(
            "calibration needs at least one photo and two products, got "
            f"{n_photos} photos and {n_items} products"
        )
    for name, share in shares.items():
        if not 0 < share < 1:
            raise InvalidArgumentError(f"{name} must be between 0 and 1, got {share}")


class _View(NamedTuple):
    """The photos as one of the three ways shows them."""

    evidence: Evidence
    targets: Tensor  # int64 (B,): item row, or N for none of the products
    weights: Tensor  # (B,)

    def take(self, photos: Tensor) -> "_View":
        return _View(self.evidence.take(photos), self.targets[photos], self.weights[photos])


class _Views(NamedTuple):
    as_is: _View
    removed: _View
    just_added: _View

    def take(self, photos: Tensor) -> "_Views":
        return _Views(*(view.take(photos) for view in self))


def _views(evidence: Evidence, unmet: Evidence, rows: Tensor, unknown_share: float) -> _Views:
    evidence, unmet = (one._replace(values=one.values.double()) for one in (evidence, unmet))
    n_items = evidence.values.shape[1]
    own = F.one_hot(rows, n_items).bool()[..., None]  # (B, N, 1)
    learned = torch.tensor([source.from_photos for source in SOURCES])
    present = evidence.present[torch.arange(len(rows)), rows]  # (B, S)
    # A view that hides nothing, or everything, would only repeat another one.
    differs = present[:, ~learned].any(dim=1) & present[:, learned].any(dim=1)
    just_added = (1 - unknown_share) * JUST_ADDED_SHARE * differs.double()
    as_is = 1 - unknown_share - just_added
    nowhere = torch.full_like(rows, n_items)
    without_own = unmet.without(own.expand_as(unmet.present))
    return _Views(
        as_is=_View(evidence, rows, as_is),
        removed=_View(without_own, nowhere, torch.full_like(as_is, unknown_share)),
        just_added=_View(unmet.without(own & learned), rows, just_added),
    )


def _fit(views: _Views) -> tuple[Tensor, Tensor, Tensor]:
    """Return weights (S,), pivots (S,) and the utility of "none", by penalised likelihood.

    The penalty is a normal prior. Weights are a softplus, because a source may be useless but never
    speaks against what it resembles.
    """
    prior_weights, prior_pivots, deviations = (
        torch.tensor([getattr(source, name) for source in SOURCES], dtype=torch.float64)
        for name in ("weight", "pivot", "pivot_deviation")
    )
    n_sources = len(SOURCES)
    parameters = torch.zeros(2 * n_sources + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def unpack() -> tuple[Tensor, Tensor, Tensor]:
        weights = prior_weights * F.softplus(parameters[:n_sources]) / log(2)
        pivots = prior_pivots + deviations * parameters[n_sources:-1]
        return weights, pivots, parameters[-1] * _UNKNOWN_DEVIATION

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = 0.5 * parameters.square().sum()
        for view in views:
            logits = utilities(view.evidence, *unpack())
            each = F.cross_entropy(logits, view.targets, reduction="none")
            # A product without any source has probability 0; its photos teach nothing.
            value = value + (view.weights * each.masked_fill(each.isinf(), 0.0)).sum()
        value = value / len(views.as_is.targets)
        value.backward()
        return value

    optimizer.step(loss)
    weights, pivots, unknown = unpack()
    return weights.detach(), pivots.detach(), unknown.detach()


class _Probabilities(NamedTuple):
    """Probabilities of the products and, in the last column, of "not in the catalogue"."""

    as_is: Tensor  # (B, N + 1)
    removed: Tensor  # (B, N + 1)


def _cross_fitted(views: _Views) -> _Probabilities:
    """Return probabilities of each photo, from weights fitted on the photos of other products."""
    products, positions = views.as_is.targets.unique(return_inverse=True)
    n_folds = min(N_FOLDS, len(products))
    folds = positions % n_folds
    n_photos, n_items, _ = views.as_is.evidence.values.shape
    found = _Probabilities(
        *(torch.zeros(n_photos, n_items + 1, dtype=torch.float64) for _ in _Probabilities._fields)
    )
    for fold in range(n_folds):
        held_out = folds == fold
        # A single product has no others to fit on.
        fitted = _fit(views.take(~held_out if n_folds > 1 else held_out))
        for into, view in ((found.as_is, views.as_is), (found.removed, views.removed)):
            into[held_out] = utilities(view.evidence.take(held_out), *fitted).softmax(dim=1)
    return found


class _Outcomes(NamedTuple):
    """What each of T thresholds would do with every photo, as it is and with its product removed.

    The second axis holds the two views.
    """

    thresholds: Tensor  # (T,), from low to high
    answered: Tensor  # bool (T, 2, B)
    correct: Tensor  # bool (T, 2, B)


def _known_outcomes(found: _Probabilities) -> _Outcomes:
    """Return the outcomes of saying "in the catalogue"."""
    thresholds = torch.cat([torch.zeros(1), _THRESHOLDS])
    inside = [1 - table[:, -1] for table in found]
    answered = torch.stack([torch.stack([p >= t for p in inside]) for t in thresholds])
    return _Outcomes(thresholds, answered, answered & torch.tensor([True, False])[:, None])


def _named_outcomes(found: _Probabilities, rows: Tensor, ancestors: Tensor) -> _Outcomes:
    """Return the outcomes of naming a product or a group."""
    as_is, removed = (likely_sets(table[:, :-1], ancestors) for table in found)
    hit = as_is.rows == rows[:, None, None]  # (B, L + 1, K)
    hit_by_size = hit.cumsum(dim=2) > 0
    photo = torch.arange(len(rows))
    answered, correct = [], []
    for threshold in _THRESHOLDS.tolist():
        choice = choose(as_is, threshold)
        named = choice.sizes > 0
        right = hit_by_size[photo, choice.levels, choice.sizes - 1] & named
        answered.append(torch.stack([named, choose(removed, threshold).sizes > 0]))
        correct.append(torch.stack([right, torch.zeros_like(right)]))
    return _Outcomes(_THRESHOLDS, torch.stack(answered), torch.stack(correct))


def _choose_point(outcomes: _Outcomes, precision: float, unknown_share: float) -> OperatingPoint:
    """Return the lowest threshold that reaches the precision.

    One correct and one wrong answer are added to the counts (Laplace's rule of succession), so that
    a handful of photos cannot promise much.
    """
    shares = torch.tensor([1 - unknown_share, unknown_share], dtype=torch.float64)[:, None]
    answered, correct = ((shares * each).sum(dim=(1, 2)) for each in outcomes[1:])
    estimates = (correct + 1) / (answered + 2)
    good = (estimates >= precision).nonzero().flatten().tolist()
    if not good:
        return OperatingPoint(None, precision=float(estimates.max()), coverage=0.0)
    first = good[0]
    coverage = float(answered[first]) / outcomes.answered.shape[2]
    return OperatingPoint(float(outcomes.thresholds[first]), float(estimates[first]), coverage)


def _error(found: _Probabilities, rows: Tensor, unknown_share: float) -> float:
    """Return the expected calibration error of the most probable product, over ``N_BINS`` bins."""
    best = torch.cat([table[:, :-1] for table in found]).max(dim=1)
    hit = best.indices[: len(rows)] == rows
    correct = torch.cat([hit, torch.zeros(len(rows), dtype=torch.bool)])
    shares = torch.tensor([1 - unknown_share, unknown_share])
    weights = shares.repeat_interleave(len(rows)) / len(rows)
    bins = (best.values * N_BINS).long().clamp(max=N_BINS - 1)
    gaps = weights * (correct.double() - best.values)
    return float(torch.zeros(N_BINS, dtype=torch.float64).index_add(0, bins, gaps).abs().sum())
