import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.config import TrainConfig
from recsys.errors import DataError, InvalidArgumentError
from recsys.training.inputs import Material
from recsys.training.known import count_events
from recsys.training.rankers import compare_rankers
from recsys.training.stages import STAGES
from recsys.training.trials import Trial
from recsys.training.tuning import (
    FOLDER,
    SPACE,
    Tuning,
    check_tuning,
    choose_settings,
    get_value,
    search_space,
    tune_settings,
    with_values,
)
from tests.recsys.training.stack_material import (
    CONFIG,
    behaviour,
    made_runtime,
    material,
    of_kind,
    shop,
)
from vision.errors import MissingExtraError
from vision.tuning.space import Bounds


def search(
    folder: Path,
    n_trials: int,
    *,
    chosen: Material | None = None,
    announce: Callable[[str], None] = lambda trial: None,
) -> Tuning:
    runtime = made_runtime(folder / STAGES)
    items = count_events(behaviour(), runtime)
    return tune_settings(
        chosen or material(), items, CONFIG, runtime, n_trials=n_trials, announce=announce
    )


def folders(folder: Path) -> list[str]:
    """Return the names of the stages that a search has left, without their keys."""
    return sorted(one.name.rpartition("-")[0] for one in (folder / STAGES / FOLDER).iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tuning, Path]:
    """A search of three trials, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return search(folder, 3), folder


def as_given(config: TrainConfig, names: Any) -> dict[str, Any]:
    return {name: get_value(config, name) for name in names}


def test_the_first_trial_is_the_configuration_as_given_and_others_are_not(
    whole: tuple[Tuning, Path],
) -> None:
    space = search_space(CONFIG, aligned=False)
    given = as_given(CONFIG, space)
    first, *others = (trial.values for trial in whole[0].trials)
    assert first == given
    assert len(others) == 2
    for values in others:
        assert values.keys() == space.keys()
        assert values != given
    assert others[0] != others[1]


def test_a_longer_search_goes_on_from_a_shorter_one_and_keeps_the_best_networks_alone(
    whole: tuple[Tuning, Path], tmp_path: Path
) -> None:
    begun: list[str] = []
    left: list[list[str]] = []

    def began(trial: str) -> None:
        begun.append(trial)
        left.append(folders(tmp_path) if (tmp_path / STAGES / FOLDER).exists() else [])

    search(tmp_path, 2, announce=began)
    assert begun == ["trial 1 of 2", "trial 2 of 2"]
    assert left == [[], ["items", "trial", "users-first"]]
    assert folders(tmp_path) == ["trial", "trial"]
    again = search(tmp_path, 3, announce=began)
    assert begun[2:] == ["trial 3 of 3"]
    assert folders(tmp_path) == folders(whole[1]) == ["trial"] * 3
    assert again.config == whole[0].config
    for one, other in zip(again.trials, whole[0].trials, strict=True):
        assert one.values == other.values
        np.testing.assert_array_equal(one.users, other.users)


def test_an_interrupted_search_goes_on_with_the_networks_that_it_had(
    whole: tuple[Tuning, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> Any:
        if len(begun) == 2:
            raise KeyboardInterrupt
        return compare_rankers(*arguments)

    begun: list[str] = []
    monkeypatch.setattr("recsys.training.trials.compare_rankers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, 2, announce=begun.append)
    assert folders(tmp_path).count("items") == 2  # of the first, which is the best, and this one
    trained = {
        one: one.stat().st_mtime_ns
        for one in (tmp_path / STAGES / FOLDER).glob("items-*/weights.safetensors")
    }
    seen: dict[Path, int] = {}

    def look(*arguments: Any) -> Any:
        seen.update({one: one.stat().st_mtime_ns for one in trained})
        return compare_rankers(*arguments)

    monkeypatch.setattr("recsys.training.trials.compare_rankers", look)
    begun.clear()
    again = search(tmp_path, 2, announce=begun.append)
    assert begun == ["trial 2 of 2"]
    assert seen == trained
    assert [one.ndcg for one in again.trials] == [one.ndcg for one in whole[0].trials[:2]]


def test_other_tables_do_not_go_on_from_a_search_and_only_the_best_networks_are_kept(
    whole: tuple[Tuning, Path],
) -> None:
    place = whole[1] / STAGES / FOLDER
    kept: dict[str, set[str]] = {}

    def began(trial: str) -> None:
        kept[trial] = {one.name for one in place.iterdir() if not one.name.startswith("trial-")}

    found = search(whole[1], 3, chosen=material(key="other"), announce=began)
    values = [one.ndcg for one in found.trials]
    assert kept == {
        "trial 1 of 3": set(),
        "trial 2 of 3": set(found.trials[0].stages),
        "trial 3 of 3": set(found.trials[int(np.argmax(values[:2]))].stages),
    }


def made_trial(users: list[float] | None, dim: int) -> Trial:
    return Trial({"fusion.dim": dim}, None if users is None else np.array(users), ())


def test_the_best_is_taken_if_it_is_better_by_more_than_a_standard_error() -> None:
    given = made_trial([0.1, 0.2, 0.3, 0.4], 6)
    # Leads of 0.1, 0.1, 0.2 and 0.0: mean 0.1, deviation 0.0707, error 0.0354.
    better = made_trial([0.2, 0.3, 0.5, 0.4], 64)
    found = choose_settings(CONFIG, [given, better, made_trial(None, 128)])
    assert found.config.fusion == CONFIG.fusion.model_copy(update={"dim": 64})
    assert found.changed == {"fusion.dim": (6, 64)}
    assert found.gained == pytest.approx(0.1)
    assert found.error == pytest.approx(0.05 / np.sqrt(2))
    assert "3 trials, of which the best is taken: fusion.dim 6 -> 64. It has" in found.sentence
    assert (
        "against 0.2500 with the settings as given (difference 0.1000, standard" in found.sentence
    )
    assert "The best of many noisy trials looks better than it is" in found.sentence
    assert found.to_json()["trials"][2] == {"ndcg": None, "values": {"fusion.dim": 128}}


def test_the_settings_as_given_stay_unless_another_is_clearly_better() -> None:
    given = made_trial([0.1, 0.2, 0.3, 0.4], 6)
    # Leads of 0.4, -0.3, 0.0 and 0.0: mean 0.025, error 0.125.
    noisy = made_trial([0.5, -0.1, 0.3, 0.4], 64)
    for trials in ([given, noisy], [given, made_trial([0.0, 0.0, 0.0, 0.1], 64)]):
        found = choose_settings(CONFIG, trials)
        assert found.config is CONFIG
        assert found.changed == {}
        assert "2 trials, none of them better than the settings as given" in found.sentence


def test_every_value_of_the_space_is_one_that_a_configuration_may_have() -> None:
    ends = {
        name: (domain.low, domain.high) if isinstance(domain, Bounds) else domain
        for name, domain in SPACE.items()
    }
    for name, values in ends.items():
        for value in values:
            changed = with_values(TrainConfig(), {name: value})
            assert get_value(changed, name) == value
            assert TrainConfig.model_validate(changed.model_dump()) == changed


def test_the_space_has_the_given_values_and_leaves_out_what_is_not_read() -> None:
    odd = {"fusion.dim": 48, "ranker.trees.leaves": 200, "ranker.trees.learning_rate": 0.001}
    space = search_space(with_values(TrainConfig(), odd), aligned=False)
    assert space.keys() == SPACE.keys()
    assert space["fusion.dim"] == (48, 64, 128, 256)
    assert space["ranker.trees.leaves"] == Bounds(7, 200, log=True)
    assert space["ranker.trees.learning_rate"] == Bounds(0.001, 0.2, log=True)
    assert search_space(TrainConfig(), aligned=False) == SPACE
    aligned = search_space(TrainConfig(), aligned=True)
    assert SPACE.keys() - aligned.keys() == {"fusion.dim", "fusion.dropout"}
    network = search_space(of_kind("network"), aligned=False)
    assert not any("trees" in name for name in network)
    assert "ranker.n_candidates" in network


def test_a_search_without_events_trials_or_optuna_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_tuning(shop(), 2)
    with pytest.raises(InvalidArgumentError, match=r"tune must be at least 2 trials.*got 1"):
        check_tuning(shop(), 1)
    without = shop(interactions=None, left_out={"ranking": "no events table was given"})
    with pytest.raises(DataError, match=r"got none \(no events table was given\); add events"):
        check_tuning(without, 2)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"vitrine-recsys\[search\]"):
        check_tuning(shop(), 2)
