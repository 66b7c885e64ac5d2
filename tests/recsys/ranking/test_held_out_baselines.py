"""What baselines learn, and what they only score by, where a fold of the users is held out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recsys.data.arrays import Bools
from recsys.data.interactions import Interactions
from recsys.ranking.baselines import IALS
from recsys.ranking.baselines.factors import fold_in
from tests.recsys.ranking.test_baselines import BASELINES, NOW_US, interactions


@pytest.fixture(scope="module")
def random_events() -> Interactions:
    generator = np.random.default_rng(1)
    columns = generator.integers(0, 90, 600), generator.integers(0, 21, 600)
    return interactions(*columns, generator.uniform(1, 200, 600), n_users=90, n_items=21)


@pytest.fixture(scope="module")
def held_out() -> Bools:
    return np.arange(90) % 4 == 0


@pytest.mark.parametrize("name", BASELINES)
def test_what_held_out_users_have_changes_no_score_of_others(
    name: str, random_events: Interactions, held_out: Bools
) -> None:
    hidden = held_out[random_events.user_rows]
    moved = np.where(hidden, (random_events.item_rows + 1) % 21, random_events.item_rows)
    others = np.flatnonzero(~held_out)
    scores = [
        BASELINES[name]().fit(log, now_us=NOW_US, held_out=held_out).scores(others)
        for log in (
            random_events,
            replace(random_events, item_rows=moved),
            random_events.without_users(held_out),
        )
    ]
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[0], scores[2])


@pytest.mark.parametrize("name", ["popularity", "item-kNN", "EASE"])
def test_a_held_out_user_scores_as_one_who_has_the_same_items(
    name: str, random_events: Interactions, held_out: Bools
) -> None:
    """User 0 has the items of user 1, of whom alone something is learned."""
    twins = random_events.where(random_events.user_rows != 0)
    own = twins.where(twins.user_rows == 1)
    for column in ("user_rows", "item_rows", "kinds", "timestamps_us", "quantities"):
        added = 0 * own.user_rows if column == "user_rows" else getattr(own, column)
        joined = np.concatenate([getattr(twins, column), added])
        twins = replace(twins, **{column: joined})
    scores = BASELINES[name]().fit(twins, now_us=NOW_US, held_out=held_out).scores(np.arange(2))
    np.testing.assert_array_equal(scores[0], scores[1])


def test_ials_folds_in_held_out_users(random_events: Interactions, held_out: Bools) -> None:
    model = IALS(3).fit(random_events, now_us=NOW_US, held_out=held_out)
    matrix = random_events.without_users(~held_out).matrix()
    pairs = torch.from_numpy(np.stack(matrix.nonzero()).astype(np.int64))
    wanted = fold_in(torch.from_numpy(model.factors.items), *pairs, 90)
    found = model.factors.users[held_out]
    np.testing.assert_allclose(found, wanted.numpy()[held_out], rtol=1e-4, atol=1e-6)
    assert (found != 0).any(axis=1).all()
