from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.data.arrays import Doubles
from recsys.ranking.calibration import UNCALIBRATED, Calibration, Calibrations
from recsys.ranking.candidates import CandidateSource
from recsys.ranking.features import FEATURES
from recsys.ranking.rankers import SimpleRanker
from recsys.training import calibration as module
from recsys.training.calibration import (
    Pairs,
    Spread,
    calibrate,
    fit_calibration,
    offered_pairs,
    rescale,
    spread_of,
)
from recsys.training.ranking import sample_examples
from tests.recsys.training.snapshots import (
    DAY,
    items_of,
    purchases,
    snapshot,
    snapshot_of,
    untrained_encoder,
)

PLAIN = Spread(0.0, 1.0)


def drawn(log_odds: Doubles, scores: Doubles, *, seed: int = 0, n_users: int = 300) -> Pairs:
    """Return pairs that are taken with these log-odds, which do not depend on the user."""
    generator = np.random.default_rng(seed)
    users = generator.integers(0, n_users, len(scores))
    activity = generator.normal(1.0, 1.0, (n_users, 3))[users]
    taken = generator.random(len(scores)) < 1 / (1 + np.exp(-log_odds))
    return Pairs(users, scores, activity, taken, np.ones(len(scores)))


def stated(found: Calibration | None, pairs: Pairs) -> Doubles:
    assert found is not None
    features = torch.zeros(len(pairs.scores), len(FEATURES))
    features[:, module.ACTIVITY_COLUMNS] = torch.from_numpy(pairs.activity).float()
    features[:, FEATURES.index("history_length")] += 1e-9
    values: Doubles = found(torch.from_numpy(pairs.scores), features).numpy()
    return values


def normal(n: int = 60_000, seed: int = 1) -> Doubles:
    return np.random.default_rng(seed).normal(0, 1, n)


def test_a_straight_line_is_found_again() -> None:
    scores = normal()
    pairs = drawn(1.5 * scores - 4, scores)
    found = fit_calibration(pairs, PLAIN, seed=0)
    assert found is not None
    assert len(found.scores) == 2
    slope = np.diff(found.log_odds)[0] / np.diff(found.scores)[0]
    assert slope == pytest.approx(1.5, abs=0.1)
    assert all(abs(effect.weight) < 0.1 for effect in found.effects)
    wanted = 1 / (1 + np.exp(4 - 1.5 * scores))
    assert np.abs(stated(found, pairs) - wanted).mean() < 0.003


def test_steps_are_taken_where_a_line_is_wrong() -> None:
    """Above a threshold the score says nothing more, as of a count or a cosine."""
    scores = normal()
    pairs = drawn(np.where(scores > 1, -1.0, -6.0), scores)
    found = fit_calibration(pairs, PLAIN, seed=0)
    assert found is not None
    assert len(found.scores) > 2
    assert np.all(np.diff(found.scores) > 0)
    assert np.all(np.diff(found.log_odds) >= 0)
    high = stated(found, pairs)[scores > 1.2]
    assert high.mean() == pytest.approx(1 / (1 + np.e), abs=0.03)
    assert stated(found, pairs)[scores < 0.5].mean() < 0.006


def test_an_active_user_takes_more_at_the_same_score() -> None:
    scores, generator = normal(), np.random.default_rng(3)
    pairs = drawn(scores - 4, scores)
    probable = 1 / (1 + np.exp(4 - scores - pairs.activity[:, 0]))
    pairs = pairs._replace(taken=generator.random(len(scores)) < probable)
    found = fit_calibration(pairs, PLAIN, seed=0)
    assert found is not None
    assert [one.weight for one in found.effects] == pytest.approx([1, 0, 0], abs=0.15)


def test_a_pair_with_a_weight_counts_as_so_many() -> None:
    """A third of the pairs that nobody took, each three times, gives the same curve."""
    scores = normal()
    whole = drawn(scores - 4, scores)
    kept = whole.taken | (np.random.default_rng(4).random(len(scores)) < 1 / 3)
    part = whole._replace(weights=np.where(whole.taken, 1.0, 3.0)).at(kept)
    one, other = (fit_calibration(pairs, PLAIN, seed=0) for pairs in (whole, part))
    assert stated(one, whole).mean() == pytest.approx(whole.taken.mean(), rel=1e-3)
    assert stated(other, whole).mean() == pytest.approx(whole.taken.mean(), rel=0.03)


def test_a_ranker_that_is_worse_than_chance_is_not_turned_round() -> None:
    scores = normal(20_000)
    found = fit_calibration(drawn(-2 * scores - 3, scores), PLAIN, seed=0)
    assert found is not None
    assert np.ptp(found.log_odds) == 0


@pytest.mark.parametrize("case", ["few taken", "one user", "scores alike"])
def test_without_enough_to_fit_there_is_no_calibration(case: str) -> None:
    scores = normal(2_000)
    pairs = drawn(scores - 1, scores)
    if case == "few taken":
        pairs = pairs._replace(taken=pairs.taken & (np.cumsum(pairs.taken) < 40))
    if case == "one user":
        pairs = pairs._replace(taken=pairs.taken & (pairs.users < 3), users=pairs.users // 100)
        pairs = pairs._replace(taken=pairs.taken & (pairs.users == 0))
    if case == "scores alike":
        pairs = pairs._replace(scores=np.zeros(2_000))
    assert fit_calibration(pairs, PLAIN, seed=0) is None


class Ages:
    """A ranker whose score of an item is its row."""

    def __call__(self, features: Tensor) -> Tensor:
        return torch.from_numpy(items_of(features)).float()

    def contributions(self, features: Tensor) -> Tensor:
        return torch.zeros_like(features)

    def to(self, device: str) -> "Ages":
        return self


def test_every_user_with_a_history_is_asked_for_all_that_is_on_offer() -> None:
    shot = snapshot()  # 10 users with answers, one whose answer is not on offer, one newcomer
    pairs = offered_pairs(shot, untrained_encoder(), Ages(), exclude_seen=False, seed=0)
    assert len(np.unique(pairs.users)) == 11
    assert len(pairs.users) == 11 * 100
    assert (pairs.weights == 1).all()
    assert pairs.taken.sum() == sum(len(one) for one in shot.answers[:10])
    expected = sorted(row for one in shot.answers[:10] for row in one.tolist())
    assert sorted(pairs.scores[pairs.taken].astype(int).tolist()) == expected


def test_own_items_are_left_out_where_they_are_in_answers() -> None:
    # What the user takes in the window, 3 again and 7, is not theirs yet.
    met = purchases([3, 5, 3, 7], [2, 1, -1, -1])
    shot = snapshot_of([met], [np.array([3, 7])])
    encoder = untrained_encoder()
    pairs = offered_pairs(shot, encoder, Ages(), exclude_seen=True, seed=0)
    assert set(pairs.scores.astype(int)) == set(range(100)) - {3, 5}
    assert pairs.scores[pairs.taken].astype(int).tolist() == [7]


def test_a_sample_of_users_stands_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASKED_USERS", 5)
    monkeypatch.setattr(module, "UNTAKEN_PAIRS", 200)
    histories = [purchases([1], [user + 1.0]) for user in range(40)]
    answers = [np.array([user]) if user < 10 else np.empty(0, dtype=np.int64) for user in range(40)]
    shot = snapshot_of(histories, answers)
    pairs = offered_pairs(shot, untrained_encoder(), Ages(), exclude_seen=False, seed=0)
    assert pairs.weights[pairs.taken].sum() == 10
    assert pairs.weights.sum() == pytest.approx(40 * 100, rel=0.1)
    assert len(pairs.users) < 300


def test_a_ranker_that_is_trained_again_keeps_its_probabilities_at_another_scale() -> None:
    shot = snapshot()
    examples = sample_examples(shot, untrained_encoder(), n_queries=10, n_candidates=30, seed=0)

    class Again(Ages):
        def __call__(self, features: Tensor) -> Tensor:
            return 3 * super().__call__(features) - 7

    plain = spread_of(Ages(), examples)
    fitted = Calibration(*plain, (-1.0, 1.0), (-5.0, 0.0), ())
    one = Calibrations(all=fitted)
    other = rescale(one, {"all": Again(), "new": Again()}, examples)
    assert other.new is None
    assert other.all is not None
    assert other.all.spread == pytest.approx(3 * plain.spread)
    assert other.all.center == pytest.approx(3 * plain.center - 7)
    scores = torch.arange(50.0)
    for mine, theirs in ((fitted, scores), (other.all, 3 * scores - 7)):
        curve = mine.curve((theirs.double() - mine.center) / mine.spread)
        torch.testing.assert_close(curve, fitted.curve((scores - plain.center) / plain.spread))


def test_users_with_moments_of_their_own_have_no_window(caplog: pytest.LogCaptureFixture) -> None:
    shot = snapshot()
    shot = replace(shot, moments_us=shot.moments_us - np.arange(12) * DAY)
    examples = sample_examples(shot, untrained_encoder(), n_queries=9, n_candidates=9, seed=0)
    both = {"all": SimpleRanker("EASE"), "new": SimpleRanker("EASE")}
    found = calibrate(shot, untrained_encoder(), both, examples, seed=0)  # type: ignore[arg-type]
    assert found == UNCALIBRATED
    assert "no period that they could be of" in caplog.text


def test_too_few_pairs_are_logged_with_the_fix(caplog: pytest.LogCaptureFixture) -> None:
    shot = snapshot()
    examples = sample_examples(shot, untrained_encoder(), n_queries=9, n_candidates=9, seed=0)
    both = {"all": SimpleRanker("EASE"), "new": SimpleRanker("EASE")}
    found = calibrate(shot, untrained_encoder(), both, examples, seed=0)  # type: ignore[arg-type]
    assert found == UNCALIBRATED
    assert "need 40 offered items that were taken" in caplog.text
    assert "use a longer [split] horizon" in caplog.text


def test_what_a_large_catalogue_does_not_offer_is_no_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    few = CandidateSource(
        rank_all_up_to=10,
        offers={"popular": 4}
        | dict.fromkeys(
            [
                "own_history",
                "next_visit",
                "together",
                "together_recent",
                "similar_users",
                "related",
                "taste",
                "new",
            ],
            0,
        ),
    )
    monkeypatch.setattr(module, "CandidateSource", lambda: few)
    shot = snapshot()
    pairs = offered_pairs(shot, untrained_encoder(), Ages(), exclude_seen=False, seed=0)
    assert len(pairs.users) == 11 * 4
