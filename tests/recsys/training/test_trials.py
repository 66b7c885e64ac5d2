from pathlib import Path

import numpy as np
import pytest

from recsys.config import TrainConfig
from recsys.errors import DataError
from recsys.training.inputs import Material
from recsys.training.known import count_events
from recsys.training.rankers import Compared
from recsys.training.selection import SCOPES, Choice
from recsys.training.trials import Trial, run_trial, user_parts
from tests.recsys.training.snapshots import snapshot
from tests.recsys.training.stack_material import (
    CONFIG,
    CUTS_US,
    made_runtime,
    material,
    ranking_of,
    trained,
    with_changed,
)

NAN = float("nan")


def tried(folder: Path, chosen: Material, config: TrainConfig = CONFIG) -> Trial:
    runtime = made_runtime(folder, config.seed)
    taken = chosen.shop.behaviour
    assert taken is not None
    return run_trial(chosen, count_events(taken, runtime), config, runtime, values={})


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    return tried(tmp_path_factory.mktemp("given"), material())


def compared(everything: list[float], new: list[float]) -> Compared:
    """Return results by which trees rank all items and popularity the new ones."""
    results = {
        "all": {"popularity": np.full(len(everything), NAN), "trees": np.array(everything)},
        "new": {"popularity": np.array(new), "trees": np.full(len(new), NAN)},
    }
    results["all"]["popularity"][~np.isnan(everything)] = 0.0
    results["new"]["trees"][~np.isnan(new)] = 0.0
    return Compared([], results, Choice("trees", "popularity", ()), 1, snapshot(), {})


def test_a_trial_is_worth_what_the_choice_of_plain_training_is(
    given: Trial, tmp_path: Path
) -> None:
    choice = ranking_of(trained(tmp_path, material())[0]).choice
    by_scope = [one.ndcg for one in choice.trials if one.name == getattr(choice, one.scope)]
    assert len(by_scope) == len(SCOPES)
    assert given.ndcg == pytest.approx(np.mean(by_scope))


def test_nothing_after_the_split_reaches_a_trial_and_what_is_before_it_does(
    given: Trial, tmp_path: Path
) -> None:
    in_test = tried(tmp_path / "test", with_changed(CUTS_US[-1]))
    np.testing.assert_array_equal(in_test.users, given.users)
    assert tried(tmp_path / "last", with_changed(CUTS_US[-2])).ndcg != given.ndcg


def test_a_trial_trains_no_encoder_that_knows_more_than_the_first_cut(
    given: Trial,
) -> None:
    assert [name.rpartition("-")[0] for name in given.stages] == ["items", "users-first"]


def test_the_mean_of_the_parts_is_the_mean_of_the_scopes() -> None:
    found = user_parts(compared([0.5, 1.0, 0.0, 0.5], [NAN, 0.2, NAN, 0.4]), SCOPES)
    # The second user: half of 1.0 of four asked, and half of 0.2 of two of the four.
    assert found[1] == pytest.approx(0.5 * 1.0 + 0.5 * 0.2 * 2)
    assert found.mean() == pytest.approx((0.5 + 0.3) / 2)
    alone = user_parts(compared([0.5, 1.0, 0.0, 0.5], [NAN, 0.2, NAN, 0.4]), ["new"])
    np.testing.assert_allclose(alone, [0.0, 0.4, 0.0, 0.8])


def test_a_scope_that_asks_nobody_is_left_out() -> None:
    found = user_parts(compared([0.5, 1.0], [NAN, NAN]), SCOPES)
    np.testing.assert_allclose(found, [0.5, 1.0])
    with pytest.raises(DataError, match="in the scope new, got none; set a longer"):
        user_parts(compared([0.5, 1.0], [NAN, NAN]), ["new"])


def test_a_setting_that_cannot_be_trained_is_recorded_and_not_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fusion = CONFIG.fusion.model_copy(update={"learning_rate": 1e30})
    config = CONFIG.model_copy(update={"fusion": fusion})
    for _ in range(2):
        trial = tried(tmp_path, material(), config)
        assert trial.users is None
        assert trial.ndcg == -np.inf
    assert [record.message for record in caplog.records if "a trial cannot" in record.message] == [
        caplog.records[0].message
    ]
