"""From evidence to probabilities that hold: a fitted weight for every source, and thresholds."""

from dataclasses import dataclass
from math import log
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.data.interactions import Ints
from recsys.errors import InvalidArgumentError
from recsys.identification.evidence import HEAD, ITEM, PHOTOS, PICTURE, SOURCES, Evidence
from recsys.identification.groups import OperatingPoint, choose, likely_sets

N_FOLDS = 5
N_BINS = 15
MAX_CELLS = 10_000_000  # photos times products that weights are fitted on: what memory holds
BARE_SHARE = 0.1  # of the known photos, shown as if their product had only just been added
# What is believed of each source before any photo: cosines differ by a tenth where logits differ by
# one, and a cosine of a half, or a logit of 4, speaks neither for nor against.
_WEIGHTS = (10.0, 10.0, 10.0, 1.0)
_PIVOTS = (0.5, 0.5, 0.5, 4.0)
_PIVOT_DEVIATIONS = (0.2, 0.2, 0.2, 2.0)
_UNKNOWN_DEVIATION = 10.0
_THRESHOLDS = torch.arange(0.5, 0.995, 0.01, dtype=torch.float64)


class Calibrated(Protocol):
    """What turns evidence into probabilities, and says which of them are enough."""

    @property
    def known(self) -> OperatingPoint:
        """From which probability on a photo is said to show a product of the catalogue."""

    @property
    def answers(self) -> OperatingPoint:
        """From which probability on a product, or a group of a few, is named."""

    def probabilities(self, evidence: Evidence) -> Tensor:
        """Return the probability of each product, and last of none of them (B, N + 1)."""


@dataclass(frozen=True)
class Calibration:
    """A softmax over the products and "not in the catalogue".

    A conditional logit (McFadden, 1974) with an outside option: a product's utility is the sum of
    what its sources say, each above its pivot and times its weight. A source that a product lacks
    adds nothing, as if it had said exactly the pivot, so that products with few sources compete.

    Args:
        weights: Of each of ``SOURCES``, positive.
        pivots: What each source must say to speak for a product rather than against it.
        unknown: Utility of "not in the catalogue".
        known: When a photo is said to show a product of the catalogue.
        answers: When a product or a group is named.
        wanted_precision: What both thresholds were chosen for.
        unknown_share: Share of photos of other things that the probabilities reckon with.
        error: Expected calibration error on the photos that the thresholds were chosen on.
        n_photos: How many those were.
    """

    weights: tuple[float, ...]
    pivots: tuple[float, ...]
    unknown: float
    known: OperatingPoint
    answers: OperatingPoint
    wanted_precision: float | None = None
    unknown_share: float | None = None
    error: float | None = None
    n_photos: int = 0

    def probabilities(self, evidence: Evidence) -> Tensor:
        """Return the probability of each product, and last of none of them (B, N + 1)."""
        values = evidence.values
        parameters = (self.weights, self.pivots, self.unknown)
        return utilities(evidence, *(values.new_tensor(one) for one in parameters)).softmax(dim=1)


def utilities(evidence: Evidence, weights: Tensor, pivots: Tensor, unknown: Tensor) -> Tensor:
    """Return logits over the products and, last, over none of them (B, N + 1).

    Args:
        evidence: Of B photos; a product without any source cannot be the answer.
        weights: (S,).
        pivots: (S,).
        unknown: A scalar.
    """
    present = evidence.present.to(evidence.values)
    # Values are 0 where a source is absent.
    logits = evidence.values @ weights - present @ (weights * pivots)
    logits = logits.masked_fill(~evidence.present.any(dim=2), float("-inf"))
    return torch.cat([logits, unknown.expand(len(logits), 1)], dim=1)


def take_evenly(photos: Ints, *, n_items: int) -> Ints:
    """Return as many of the photos, evenly chosen, as weights can be fitted on in memory."""
    at_most = max(N_FOLDS, MAX_CELLS // n_items)
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
    """Return the calibration of photos of known products that nothing else has learned from.

    Each photo is shown three times, with weights that add up to one: as it is; as if its product
    were not in the catalogue; and as if it had just been added, without labelled photos or a class
    of the head. Thresholds are chosen on probabilities from weights fitted on other products.

    What has learned a product also tells it from its rivals once it is hidden, better than it will
    tell what it never met. The last two views are therefore taken from ``unmet``.

    Args:
        evidence: Of B photos against the whole catalogue, N >= 2.
        rows: The product on each photo, int64 (B,).
        ancestors: Category of each product by level, int64 (N, L); -1 for none.
        precision: Wanted share of right answers.
        unknown_share: Share of photos to expect that show nothing of the catalogue.
        unmet: Of the same photos, each from networks that have not met its product; None to go on
            with ``evidence``, where there are none.

    Raises:
        InvalidArgumentError: If there are no photos, fewer than two products, or a share is not
            one.
    """
    n_items = evidence.values.shape[1]
    if len(rows) == 0 or n_items < 2:
        raise InvalidArgumentError(
            "calibration needs at least one photo and two products, got "
            f"{len(rows)} photos and {n_items} products"
        )
    for name, share in {"precision": precision, "unknown_share": unknown_share}.items():
        if not 0 < share < 1:
            raise InvalidArgumentError(f"{name} must be between 0 and 1, got {share}")
    views = _views(evidence, evidence if unmet is None else unmet, rows, unknown_share)
    weights, pivots, unknown = _fit(views)
    shown, hidden = _cross_fitted(views)
    return Calibration(
        weights=tuple(weights.tolist()),
        pivots=tuple(pivots.tolist()),
        unknown=float(unknown),
        known=_known_point(shown, hidden, precision, unknown_share),
        answers=_answer_point(shown, hidden, rows, ancestors, precision, unknown_share),
        wanted_precision=precision,
        unknown_share=unknown_share,
        error=_error(shown, hidden, rows, unknown_share),
        n_photos=len(rows),
    )


class _View(NamedTuple):
    evidence: Evidence
    targets: Tensor  # (B,), N for none of the products
    weights: Tensor  # (B,)

    def take(self, photos: Tensor) -> "_View":
        return _View(self.evidence.take(photos), self.targets[photos], self.weights[photos])


class _Views(NamedTuple):
    shown: _View
    hidden: _View
    bare: _View

    def take(self, photos: Tensor) -> "_Views":
        return _Views(*(view.take(photos) for view in self))


def _views(evidence: Evidence, unmet: Evidence, rows: Tensor, unknown_share: float) -> _Views:
    evidence, unmet = (one._replace(values=one.values.double()) for one in (evidence, unmet))
    n_items = evidence.values.shape[1]
    own = F.one_hot(rows, n_items).bool()[..., None]  # (B, N, 1)
    learned = torch.zeros(len(SOURCES), dtype=torch.bool)
    learned[[PHOTOS, HEAD]] = True
    present = evidence.present[torch.arange(len(rows)), rows]  # (B, S)
    # A view that takes nothing away, or everything, would only repeat another one.
    is_bare = present[:, [PICTURE, ITEM]].any(dim=1) & present[:, [PHOTOS, HEAD]].any(dim=1)
    bare = (1 - unknown_share) * BARE_SHARE * is_bare.double()
    known = 1 - unknown_share - bare
    nowhere = torch.full_like(rows, n_items)
    unseen = unmet.without(own.expand_as(unmet.present))
    return _Views(
        shown=_View(evidence, rows, known),
        hidden=_View(unseen, nowhere, torch.full_like(known, unknown_share)),
        bare=_View(unmet.without(own & learned), rows, bare),
    )


def _fit(views: _Views) -> tuple[Tensor, Tensor, Tensor]:
    """Return weights (S,), pivots (S,) and the utility of none, by penalised likelihood.

    The penalty is a normal prior around what is believed before any photo. Weights are a softplus,
    for a source may be useless but never speaks against what it resembles.
    """
    believed, centres, deviations = (
        torch.tensor(values, dtype=torch.float64)
        for values in (_WEIGHTS, _PIVOTS, _PIVOT_DEVIATIONS)
    )
    n_sources = len(SOURCES)
    parameters = torch.zeros(2 * n_sources + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def unpack() -> tuple[Tensor, Tensor, Tensor]:
        weights = believed * F.softplus(parameters[:n_sources]) / log(2)
        pivots = centres + deviations * parameters[n_sources:-1]
        return weights, pivots, parameters[-1] * _UNKNOWN_DEVIATION

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = 0.5 * parameters.square().sum()
        for view in views:
            logits = utilities(view.evidence, *unpack())
            each = F.cross_entropy(logits, view.targets, reduction="none")
            # A product that no source knows of has no chance; its photos teach nothing.
            value = value + (view.weights * each.masked_fill(each.isinf(), 0.0)).sum()
        value = value / len(views.shown.targets)
        value.backward()
        return value

    optimizer.step(loss)
    weights, pivots, unknown = unpack()
    return weights.detach(), pivots.detach(), unknown.detach()


def _cross_fitted(views: _Views) -> tuple[Tensor, Tensor]:
    """Return probabilities (B, N + 1) of photos as they are and with their product left out.

    Each comes from weights fitted on the photos of other products.
    """
    products, positions = views.shown.targets.unique(return_inverse=True)
    n_folds = min(N_FOLDS, len(products))
    folds = positions % n_folds
    n_photos, n_items, _ = views.shown.evidence.values.shape
    shown, hidden = (torch.zeros(n_photos, n_items + 1, dtype=torch.float64) for _ in range(2))
    for fold in range(n_folds):
        asked = folds == fold
        fitted = _fit(views.take(~asked if n_folds > 1 else asked))  # one product has no others
        for into, view in ((shown, views.shown), (hidden, views.hidden)):
            into[asked] = utilities(view.evidence.take(asked), *fitted).softmax(dim=1)
    return shown, hidden


def _known_point(shown: Tensor, hidden: Tensor, precision: float, share: float) -> OperatingPoint:
    """Return the lowest probability of being in the catalogue from which that is mostly true."""
    candidates = torch.cat([torch.zeros(1), _THRESHOLDS])
    inside = [1 - table[:, -1] for table in (shown, hidden)]
    said = torch.stack([torch.stack([p >= t for p in inside]) for t in candidates])  # (T, 2, B)
    right = said & torch.tensor([True, False])[:, None]
    return _operating_point(candidates, said, right, precision, share)


def _answer_point(
    shown: Tensor,
    hidden: Tensor,
    rows: Tensor,
    ancestors: Tensor,
    precision: float,
    share: float,
) -> OperatingPoint:
    """Return the lowest probability from which products and groups named are mostly right."""
    both = [likely_sets(table[:, :-1], ancestors) for table in (shown, hidden)]
    hit = both[0].rows == rows[:, None, None]  # (B, L + 1, K)
    right_by_size = hit.cumsum(dim=2) > 0
    photo = torch.arange(len(rows))
    said, right = [], []
    for threshold in _THRESHOLDS.tolist():
        choice = choose(both[0], threshold)
        answered = choice.sizes > 0
        found = right_by_size[photo, choice.levels, choice.sizes - 1] & answered
        said.append(torch.stack([answered, choose(both[1], threshold).sizes > 0]))
        right.append(torch.stack([found, torch.zeros_like(found)]))
    return _operating_point(_THRESHOLDS, torch.stack(said), torch.stack(right), precision, share)


def _operating_point(
    thresholds: Tensor, said: Tensor, right: Tensor, precision: float, share: float
) -> OperatingPoint:
    """Return the first of the thresholds (T,) that reaches the precision.

    What was right is counted with one right and one wrong answer added (Laplace's rule of
    succession), so that a handful of photos cannot promise much.

    Args:
        thresholds: From low to high.
        said: Whether something was said, bool (T, 2, B), of photos as shown and as left out.
        right: Whether it was right, as ``said``.
        precision: Wanted.
        share: Of photos of things that are not in the catalogue.
    """
    weights = torch.tensor([1 - share, share], dtype=torch.float64)[:, None]
    spoken, correct = ((weights * each).sum(dim=(1, 2)) for each in (said, right))
    estimates = (correct + 1) / (spoken + 2)
    good = (estimates >= precision).nonzero().flatten().tolist()
    if not good:
        return OperatingPoint(None, precision=float(estimates.max()), coverage=0.0)
    first = good[0]
    coverage = float(spoken[first]) / said.shape[2]
    return OperatingPoint(float(thresholds[first]), float(estimates[first]), coverage)


def _error(shown: Tensor, hidden: Tensor, rows: Tensor, share: float) -> float:
    """Return the expected calibration error of the best candidate's probability, over 15 bins."""
    best = torch.cat([shown[:, :-1], hidden[:, :-1]]).max(dim=1)
    right = torch.cat([best.indices[: len(rows)] == rows, torch.zeros(len(rows), dtype=torch.bool)])
    weights = torch.tensor([1 - share, share]).repeat_interleave(len(rows)) / len(rows)
    bins = (best.values * N_BINS).long().clamp(max=N_BINS - 1)
    gaps = weights * (right.double() - best.values)
    return float(torch.zeros(N_BINS, dtype=torch.float64).index_add(0, bins, gaps).abs().sum())
