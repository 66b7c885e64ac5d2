"""How good a bundle's own probabilities are, on the window after its split."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.answers import MAX_K
from recsys.bundle import Bundle
from recsys.data.arrays import Doubles, Ints
from recsys.data.interactions import MICROSECONDS_PER_DAY
from recsys.errors import DataError
from recsys.evaluation.bootstrap import ratio
from recsys.evaluation.probabilities import equal_mass_calibration_error, log_losses
from recsys.evaluation.queries import Scope
from recsys.evaluation.results import ProbabilityGroup, ProbabilityRow
from recsys.evaluation.systems import bundle_split
from recsys.ranking.catalogue_ranker import SCORED_AT_ONCE
from recsys.recommender import Recommender
from recsys.rules import NO_RULES
from recsys.training.cuts import on_offer

MAX_USERS = 1_000
GROUPS = 5
SHORTEST = 0.9  # of a window that the events after the split must cover


def report_probabilities(
    bundle: Bundle, scopes: Sequence[Scope], *, seed: int = 0
) -> list[ProbabilityRow]:
    """Return how good the probabilities are in each scope that has them.

    All users with a history before the split may be asked, whether they come back or not.

    Args:
        bundle: A bundle with its ranking part.
        scopes: Scopes, of which "all" and "new" may have probabilities.
        seed: Random seed of the sample of users.

    Raises:
        DataError: If the events end before the window that follows the split.
    """
    calibrated = bundle.held_out.calibrations._asdict()
    wanted = [scope for scope in scopes if calibrated.get(scope) is not None]
    split_us = bundle.split_us
    if not wanted or not isinstance(split_us, int):
        return []
    split, days = bundle_split(bundle), bundle.statistics.tempo.window_days
    last_us = int(split.test.timestamps_us[-1])
    if last_us - split_us < SHORTEST * days * MICROSECONDS_PER_DAY:
        raise DataError(
            f"events after the split must cover the window of {days:.3g} days, got "
            f"{(last_us - split_us) / MICROSECONDS_PER_DAY:.3g} days; set an earlier [split] at"
        )
    histories = split.train.histories()
    known = np.flatnonzero([len(one.item_rows) > 0 for one in histories])
    users = np.sort(np.random.default_rng(seed).permutation(known)[:MAX_USERS])
    end_us = split_us + round(days * MICROSECONDS_PER_DAY)
    later = split.test.of_kinds(bundle.target_kinds).before(end_us).matrix()
    recommender = Recommender(bundle, as_of=split_us)
    offered = on_offer(bundle.items, split.train, split_us)
    rows = []
    for scope in wanted:
        numbers, items, stated = [], [], []
        size = max(1, SCORED_AT_ONCE // len(offered))
        for start in range(0, len(users), size):
            some = users[start : start + size]
            best = recommender.ranker.best(
                [histories[user] for user in some.tolist()],
                min(MAX_K, len(offered)),
                now_us=split_us,
                mask=offered,
                exclude_seen=scope == "new",
                rules=NO_RULES,
            )
            shown = np.arange(best.rows.shape[1]) < best.counts[:, None].numpy()
            numbers.append(start + np.nonzero(shown)[0])
            items.append(best.rows.cpu().numpy()[shown])
            stated.append(best.probabilities.cpu().numpy()[shown].astype(np.float64))
        asked = np.concatenate(numbers)
        happened = np.asarray(later[users[asked], np.concatenate(items)] > 0).ravel()
        rows.append(judge(scope, days, asked, np.concatenate(stated), happened, seed=seed))
    return rows


def judge(
    scope: Scope,
    days: float,
    users: Ints,
    stated: Doubles,
    happened: NDArray[np.bool_],
    *,
    seed: int = 0,
) -> ProbabilityRow:
    """Return how well probabilities agree with what happened.

    Args:
        scope: Scope of the answers.
        days: Length of the window.
        users: Number of the user of each pair, from 0 without gaps (P,).
        stated: Probability of each pair (P,).
        happened: Whether the user took the item, bool (P,).
        seed: Random seed of the interval.
    """
    counts = np.bincount(users).astype(np.float64)
    losses = np.bincount(users, weights=log_losses(stated, happened)).astype(np.float64)
    rate = np.full(len(stated), happened.mean())
    order = np.argsort(stated, kind="stable")
    reached = np.cumsum(stated[order]) / stated.sum()
    groups = np.split(order, np.searchsorted(reached, np.arange(1, GROUPS) / GROUPS))
    return ProbabilityRow(
        scope=scope,
        days=days,
        n_users=len(counts),
        n_pairs=len(stated),
        stated=float(stated.mean()),
        happened=float(happened.mean()),
        log_loss=ratio(losses, counts, seed=seed),
        log_loss_of_rate=float(log_losses(rate, happened).mean()),
        calibration_error=equal_mass_calibration_error(stated, happened),
        groups=[
            ProbabilityGroup(len(one), float(stated[one].mean()), float(happened[one].mean()))
            for one in groups
            if len(one)
        ],
    )
