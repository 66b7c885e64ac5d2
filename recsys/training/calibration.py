"""Fit, on the last window before the split, how probable it is that a user takes an item."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from recsys.data.arrays import Bools, Doubles, Ints
from recsys.data.interactions import History
from recsys.models.user_encoder import UserEncoder
from recsys.ranking.calibration import (
    ACTIVITY,
    ACTIVITY_COLUMNS,
    UNCALIBRATED,
    Calibration,
    Calibrations,
    Effect,
)
from recsys.ranking.candidates import CandidateSource
from recsys.ranking.features import ranking_features
from recsys.ranking.rankers import Ranker
from recsys.training.ranking import RankingExamples, Snapshot, offered_answers, profile_blocks
from recsys.training.selection import Scope

logger = logging.getLogger(__name__)

LEAST_TAKEN = 40  # pairs, ten for each number that is fitted: a slope and three effects
ASKED_USERS = 300  # who took something, and as many who did not
UNTAKEN_PAIRS = 200_000  # that are kept
GROUPS, TAKEN_IN_GROUP = 30, 10  # most groups of a curve of steps, and least taken pairs of each
FOLDS = 3
# What a stage with probabilities depends on, beside its inputs.
METHOD = (LEAST_TAKEN, ASKED_USERS, UNTAKEN_PAIRS, GROUPS, TAKEN_IN_GROUP, FOLDS, *ACTIVITY)
SMALLEST_SPREAD = 1e-6
_UNPENALISED = 1e6


class Pairs(NamedTuple):
    """Pairs of a user and an offered item, a sample with weights.

    Args:
        users: Number of each pair's user, int64 (P,).
        scores: Score of each pair (P,).
        activity: Values of ``ACTIVITY`` of each pair's user (P, 3).
        taken: Whether the user took the item in the window, bool (P,).
        weights: Number of pairs that each stands for (P,).
    """

    users: Ints
    scores: Doubles
    activity: Doubles
    taken: Bools
    weights: Doubles

    def at(self, some: NDArray[np.bool_]) -> "Pairs":
        """Return the pairs where a mask (P,) is true."""
        users, scores, activity, taken, weights = self
        return Pairs(users[some], scores[some], activity[some], taken[some], weights[some])


class Spread(NamedTuple):
    """Mean and standard deviation of a ranker's scores of items that were not taken."""

    center: float
    spread: float


def rescale(
    calibrations: Calibrations, rankers: Mapping[Scope, Ranker], examples: RankingExamples
) -> Calibrations:
    """Return calibrations for rankers that were trained again, whose scores have another spread.

    Args:
        calibrations: Calibrations of rankers of the same kinds.
        rankers: Ranker of each scope.
        examples: Queries that ``calibrate`` was called with.
    """
    found: dict[Scope, Calibration | None] = {}
    for scope, ranker in rankers.items():
        fitted: Calibration | None = getattr(calibrations, scope)
        if fitted is not None:
            found[scope] = fitted._replace(**spread_of(ranker, examples)._asdict())
    return Calibrations(**found)


NO_PAIRS = Pairs(
    users=np.empty(0, dtype=np.int64),
    scores=np.empty(0),
    activity=np.empty((0, len(ACTIVITY))),
    taken=np.empty(0, dtype=np.bool_),
    weights=np.empty(0),
)

# Points of a curve: scores in deviations, rising, and their log-odds, not falling.
Points: TypeAlias = tuple[Doubles, Doubles]


@torch.inference_mode()
def spread_of(ranker: Ranker, examples: RankingExamples) -> Spread:
    """Return the spread of a ranker's scores over the candidates that were not taken.

    A ranker that is trained again has scores of another level and scale, and this is how a
    calibration of one is used for the other.
    """
    scores = ranker(examples.features[examples.relevance == 0]).double()
    if not len(scores):  # all that was on offer was taken
        return Spread(0.0, 0.0)
    return Spread(float(scores.mean()), float(scores.std(correction=0)))


def calibrate(
    window: Snapshot,
    encoder: UserEncoder,
    rankers: Mapping[Scope, Ranker],
    examples: RankingExamples,
    *,
    seed: int,
) -> Calibrations:
    """Return a calibration of each scope, from all that is offered to users with a history.

    Unlike the examples that rankers learn from, users who took nothing are asked, too, and no item
    of an offer is left out but by a sample with weights. So shares of what was taken are real.

    Args:
        window: The last window before the split; all users have one moment.
        encoder: User encoder that was trained on earlier events only.
        rankers: Ranker of each scope that was trained on earlier windows.
        examples: Queries of the window, by which the spread of scores is measured.
        seed: Random seed of the sample.
    """
    if len(np.unique(window.moments_us)) > 1:
        logger.warning(
            "there are no probabilities, as each user is asked at a moment of their own, so there "
            'is no period that they could be of; protocol = "time" in [split] has one'
        )
        return UNCALIBRATED
    found: dict[Scope, Calibration | None] = {}
    for scope, ranker in rankers.items():
        pairs = offered_pairs(window, encoder, ranker, exclude_seen=scope == "new", seed=seed)
        found[scope] = fit_calibration(pairs, spread_of(ranker, examples), seed=seed)
        if found[scope] is None:
            logger.warning(
                "scope %r has no probabilities: they need %d offered items that were taken in the "
                "last window before the split and scores that differ, got %d; use a longer [split] "
                "horizon",
                scope,
                LEAST_TAKEN,
                int(pairs.taken.sum()),
            )
    return Calibrations(**found)


@torch.inference_mode()
def offered_pairs(
    window: Snapshot, encoder: UserEncoder, ranker: Ranker, *, exclude_seen: bool, seed: int
) -> Pairs:
    """Return a sample of the pairs of users with a history and what they are offered.

    Half of the users took something, where there are as many, and all that was taken is kept.

    Args:
        window: What was known at a moment, and what was taken after it.
        encoder: User encoder.
        ranker: What scores the offers.
        exclude_seen: Whether items of the user's own history are left out of the offers.
        seed: Random seed of the sample.
    """
    generator = np.random.default_rng(seed)
    users, weights = _sample_users(window, generator)
    window = _past_of(window, users)
    answers = offered_answers(window)
    mask = np.zeros(len(window.table), dtype=np.bool_)
    mask[window.candidates] = True
    source = CandidateSource()
    parts = [NO_PAIRS]
    for some, profiles in profile_blocks(window, np.arange(len(users)), encoder):
        rows, allowed = source.choose(profiles, mask, window.table, exclude_seen=exclude_seen)
        features = ranking_features(profiles, rows, window.table).cpu()
        scores, rows = ranker(features), rows.cpu().expand(allowed.shape)
        of, places = (one.numpy() for one in allowed.cpu().nonzero(as_tuple=True))
        taken = [
            np.isin(row.numpy(), right) for row, right in zip(rows, answers[some], strict=True)
        ]
        activity = features[:, 0, ACTIVITY_COLUMNS].double().numpy()
        numbers = some.start + of
        parts.append(
            Pairs(
                numbers,
                scores.double().numpy()[of, places],
                activity[of],
                np.stack(taken)[of, places],
                weights[numbers],
            )
        )
    return _thin(Pairs(*(np.concatenate(column) for column in zip(*parts, strict=True))), generator)


def fit_calibration(pairs: Pairs, spread: Spread, *, seed: int) -> Calibration | None:
    """Return the calibration of pairs; None if too few were taken or all scores are alike.

    The curve is a straight line, as of Platt (1999), or steps: the shares of what was taken in
    groups of rising scores, made monotone (Zadrozny and Elkan, 2002,
    https://doi.org/10.1145/775047.775151), with straight lines between their means. The steps are
    taken if users who were not fitted on are better predicted, by more than one standard error of
    the log-loss. Either is fitted again together with the effects of the user.

    Args:
        pairs: Pairs of users and items on offer.
        spread: Spread of the scores.
        seed: Random seed of the folds of users.
    """
    if pairs.taken.sum() < LEAST_TAKEN or spread.spread < SMALLEST_SPREAD:
        return None
    pairs = pairs._replace(scores=(pairs.scores - spread.center) / spread.spread)
    if np.ptp(pairs.scores) < SMALLEST_SPREAD:
        return None
    order = np.random.default_rng(seed).permutation(int(pairs.users.max()) + 1)
    folds = order[pairs.users] % FOLDS
    if min(pairs.taken[folds != fold].sum() for fold in range(FOLDS)) < TAKEN_IN_GROUP:
        return None  # one user took nearly all
    losses = np.zeros((2, len(pairs.users)))
    for fold in range(FOLDS):
        rest, held = pairs.at(folds != fold), folds == fold
        for losses_of, points in zip(losses, (_line(rest), _steps(rest)), strict=True):
            losses_of[held] = _losses(_with_effects(points, rest, spread), pairs.at(held))
    gained = np.bincount(pairs.users, pairs.weights * (losses[0] - losses[1]))
    better = gained.mean() > gained.std() / np.sqrt(len(gained))
    return _with_effects(_steps(pairs) if better else _line(pairs), pairs, spread)


def _with_effects(points: Points, pairs: Pairs, spread: Spread) -> Calibration:
    """Return a curve with the effects of the user; scores of the pairs are in deviations."""
    scores, heights = points
    curve = np.interp(pairs.scores, scores, heights)
    weights, intercept = _regress(np.column_stack([curve, pairs.activity]), pairs)
    if weights[0] < 0:  # the ranker is worse than chance, so its score says nothing
        weights, intercept = _regress(np.column_stack([0 * curve, pairs.activity]), pairs)
    lows, highs = pairs.activity.min(axis=0), pairs.activity.max(axis=0)
    effects = zip(weights[1:].tolist(), lows.tolist(), highs.tolist(), strict=True)
    return Calibration(
        *spread,
        scores=tuple(scores.tolist()),
        log_odds=tuple((intercept + weights[0] * heights).tolist()),
        effects=tuple(Effect(*one) for one in effects),
    )


def _regress(columns: Doubles, pairs: Pairs) -> tuple[Doubles, float]:
    """Return the weights of columns (P, M) and the intercept of a logistic regression."""
    center, deviation = columns.mean(axis=0), columns.std(axis=0)
    scaled = (columns - center) / np.maximum(deviation, SMALLEST_SPREAD)
    model = LogisticRegression(C=_UNPENALISED, max_iter=1_000)
    model.fit(scaled, pairs.taken, sample_weight=pairs.weights)
    weights = model.coef_[0] / np.maximum(deviation, SMALLEST_SPREAD)
    return weights, float(model.intercept_[0] - weights @ center)


def _line(pairs: Pairs) -> Points:
    ends = np.array([pairs.scores.min(), pairs.scores.max()])
    return ends, ends


def _steps(pairs: Pairs) -> Points:
    """Return the monotone shares of groups of rising scores, each with as many taken pairs."""
    order = np.argsort(pairs.scores, kind="stable")
    weights, taken = pairs.weights[order], (pairs.weights * pairs.taken)[order]
    counts = np.cumsum(pairs.taken[order])
    size = max(TAKEN_IN_GROUP, -(-int(counts[-1]) // GROUPS))
    # A group ends with its last taken pair, and the last has the rest.
    groups = np.minimum((counts - pairs.taken[order]) // size, counts[-1] // size - 1)
    totals = np.bincount(groups, weights)
    scores = np.bincount(groups, weights * pairs.scores[order]) / totals
    shares = (np.bincount(groups, taken) + 0.5) / (totals + 1)
    shares = IsotonicRegression().fit(scores, shares, totals).predict(scores)
    scores, first = np.unique(scores, return_index=True)
    if len(scores) < 2:
        return _line(pairs)
    return scores, np.log(shares[first]) - np.log1p(-shares[first])


def _losses(calibration: Calibration, pairs: Pairs) -> Doubles:
    """Return -log of the probability of what happened, for each pair; scores in deviations."""
    activity = [
        effect.weight * np.clip(values, effect.low, effect.high)
        for effect, values in zip(calibration.effects, pairs.activity.T, strict=True)
    ]
    log_odds = calibration.curve(torch.from_numpy(pairs.scores)).numpy() + np.sum(activity, axis=0)
    losses: Doubles = np.logaddexp(0, np.where(pairs.taken, -log_odds, log_odds))
    return losses


def _past_of(window: Snapshot, users: Ints) -> Snapshot:
    """Return some users of a snapshot, without the events after their moments.

    Those would count as items that the user has, which "new" leaves out.
    """
    pasts = []
    for user in users.tolist():
        history = window.histories[user]
        n_past = np.searchsorted(history.timestamps_us, window.moments_us[user])
        pasts.append(History(*(column[:n_past] for column in history)))
    answers = [window.answers[user] for user in users.tolist()]
    moments_us = window.moments_us[users]
    return replace(window, histories=pasts, moments_us=moments_us, answers=answers)


def _sample_users(window: Snapshot, generator: np.random.Generator) -> tuple[Ints, Doubles]:
    """Return users with a history, and how many each of them stands for."""
    pasts = zip(window.histories, window.moments_us.tolist(), strict=True)
    known = np.array(
        [len(one.timestamps_us) > 0 and one.timestamps_us[0] < now for one, now in pasts]
    )
    takers = np.array([len(rows) > 0 for rows in offered_answers(window)])
    found, weights = [], []
    for group in (np.flatnonzero(known & takers), np.flatnonzero(known & ~takers)):
        sample = generator.permutation(group)[:ASKED_USERS]
        found.append(sample)
        weights.append(np.full(len(sample), len(group) / max(1, len(sample))))
    return np.concatenate(found), np.concatenate(weights)


def _thin(pairs: Pairs, generator: np.random.Generator) -> Pairs:
    """Return all taken pairs and a sample of the others, which stand for all of them."""
    share = min(1.0, UNTAKEN_PAIRS / max(1, int((~pairs.taken).sum())))
    weights = np.where(pairs.taken, pairs.weights, pairs.weights / share)
    kept = pairs.taken | (generator.random(len(weights)) < share)
    return pairs._replace(weights=weights).at(kept)
