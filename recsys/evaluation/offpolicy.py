"""What a new policy would have earned, from a log of what another policy showed.

The log has one row per choice: an item was shown with a known probability, and a reward followed.
The new policy shows the same item with another probability; the quotient of the two is the row's
weight. All estimators need that the old policy could make every choice that the new one makes.
"""

from dataclasses import dataclass

import dataframely as dy
import numpy as np
import polars as pl

from recsys.data.arrays import Doubles, Ints
from recsys.data.frames import Frame
from recsys.data.tables import Source
from recsys.errors import DataError, InvalidArgumentError
from recsys.evaluation.bootstrap import Estimate, ratios
from recsys.evaluation.foreign import is_given, read_rows, require_rows

TABLE = "log"


class LogSchema(dy.Schema):
    """One row per logged choice."""

    user_id = dy.String(
        nullable=True, description="Key of the user, whose rows are drawn together."
    )
    reward = dy.Float64(nullable=True, description="What the choice earned, such as 1 for a click.")
    propensity = dy.Float64(
        nullable=True, description="Probability with which the old policy made the choice."
    )
    target_propensity = dy.Float64(
        nullable=True, description="Probability with which the new policy makes it."
    )
    predicted_reward = dy.Float64(
        nullable=True, description="Reward that a model predicts for the choice."
    )
    expected_reward = dy.Float64(
        nullable=True, description="Mean prediction over what the new policy would choose."
    )


@dataclass(frozen=True)
class PolicyValue:
    """Estimates of the mean reward of a new policy, with 95 % intervals, and when to doubt them.

    Args:
        logged: Mean reward of the old policy, as logged.
        ips: Inverse propensity scoring.
        snips: The same, divided by the mean weight.
        direct: Mean of the model's predictions; None without them.
        doubly_robust: The predictions, corrected by the weighted errors; None without them.
        mean_weight: Mean weight; where its interval is far from 1, the propensities are wrong, or
            the new policy makes choices that the old one never made.
        largest_weight: Largest weight, before any was clipped.
        n_choices: Number of rows.
        n_clipped: Number of weights that were cut to ``max_weight``.
        effective_sample_size: Number of rows of equal weight that would be as good.
    """

    logged: Estimate
    ips: Estimate
    snips: Estimate
    direct: Estimate | None
    doubly_robust: Estimate | None
    mean_weight: Estimate
    largest_weight: float
    n_choices: int
    n_clipped: int
    effective_sample_size: float


def evaluate_policy(
    log: Source | Frame, *, max_weight: float | None = None, seed: int = 0
) -> PolicyValue:
    """Return what a new policy would earn for each choice, from a log of another policy's choices.

    IPS (Horvitz and Thompson, 1952) has no bias where the propensities are right; SNIPS
    (Swaminathan and Joachims, 2015, https://papers.nips.cc/paper/5748) trades a bias that vanishes
    with the number of rows for less spread. The direct method is as right as its model; doubly
    robust (Dudík et al., 2011, https://arxiv.org/abs/1103.4601) has no bias if either the
    propensities or the model are right. Intervals are of the bootstrap over users, or over rows
    where the log names no users. The effective sample size is Kish's (1965).

    Args:
        log: Table of ``LogSchema``: reward, propensity and target_propensity; user_id if known;
            predicted_reward and expected_reward for the direct method and doubly robust.
        max_weight: Weights above it are cut to it, which lowers the spread and adds a bias; None
            cuts none.
        seed: Random seed for the bootstrap.

    Raises:
        DataError: If a propensity is missing, 0, or above 1, another number is missing or out of
            range, or the new policy makes none of the logged choices.
        SchemaError: If a column has a type that cannot be read.
        InvalidArgumentError: If ``max_weight`` is not above 0.
    """
    if max_weight is not None and not max_weight > 0:
        raise InvalidArgumentError(f"max_weight must be above 0 or None, got {max_weight}")
    read = read_rows(log, LogSchema, table=TABLE)
    with_model = _check(read)
    rewards, unclipped = _numbers(read, "reward"), _weights(read)
    weights = unclipped if max_weight is None else np.minimum(unclipped, max_weight)
    ones = np.ones(len(read))
    fractions = {
        "logged": (rewards, ones),
        "ips": (weights * rewards, ones),
        "snips": (weights * rewards, weights),
        "mean_weight": (weights, ones),
    }
    if with_model:
        predicted, expected = (_numbers(read, f"{one}_reward") for one in ("predicted", "expected"))
        fractions["direct"] = expected, ones
        fractions["doubly_robust"] = expected + weights * (rewards - predicted), ones
    found = _estimate(read, fractions, seed)
    return PolicyValue(
        logged=found["logged"],
        ips=found["ips"],
        snips=found["snips"],
        direct=found.get("direct"),
        doubly_robust=found.get("doubly_robust"),
        mean_weight=found["mean_weight"],
        largest_weight=float(unclipped.max()),
        n_choices=len(read),
        n_clipped=int((unclipped > weights).sum()),
        effective_sample_size=float(weights.sum() ** 2 / (weights**2).sum()),
    )


def _check(read: pl.DataFrame) -> bool:
    """Raise on a bad cell; return whether the log has the predictions of a model."""
    models = [is_given(read, name) for name in ("predicted_reward", "expected_reward")]
    if any(models) and not all(models):
        raise DataError(
            f"{TABLE} must have predicted_reward and expected_reward, or neither, got only one"
        )
    probable = pl.col("propensity")
    rules = {
        "reward": (pl.col("reward").is_finite(), "must be a finite number"),
        "propensity": (
            (probable > 0) & (probable <= 1),
            "must be above 0 and at most 1, the probability with which the choice was made",
        ),
        "target_propensity": (pl.col("target_propensity").is_between(0, 1), "must be from 0 to 1"),
    }
    for name in ("predicted_reward", "expected_reward") if any(models) else ():
        rules[name] = pl.col(name).is_finite(), "must be a finite number"
    if is_given(read, "user_id"):
        rules["user_id"] = pl.col("user_id").is_not_null(), "must be an id, or no row has one"
    for column, (valid, wanted) in rules.items():
        require_rows(read, valid, column=column, wanted=wanted, table=TABLE)
    if not read["target_propensity"].max():
        raise DataError(
            f"{TABLE} must have choices that the new policy makes, got target_propensity 0 in all "
            f"{len(read):,} rows; a log of other choices says nothing about it"
        )
    return any(models)


def _numbers(read: pl.DataFrame, column: str) -> Doubles:
    return read[column].to_numpy().astype(np.float64)


def _weights(read: pl.DataFrame) -> Doubles:
    return _numbers(read, "target_propensity") / _numbers(read, "propensity")


def _estimate(
    read: pl.DataFrame, fractions: dict[str, tuple[Doubles, Doubles]], seed: int
) -> dict[str, Estimate]:
    """Return the sum of each first column over that of its second, resampled by user."""
    columns = [np.stack(pair, axis=1) for pair in zip(*fractions.values(), strict=True)]
    if is_given(read, "user_id"):
        users = read["user_id"].rank("dense").to_numpy().astype(np.int64) - 1
        columns = [_sums(users, values) for values in columns]
    return dict(zip(fractions, ratios(*columns, seed=seed), strict=True))


def _sums(users: Ints, values: Doubles) -> Doubles:
    """Return the sums of the rows of each user (U, M)."""
    return np.stack([np.bincount(users, weights=column) for column in values.T], axis=1)
