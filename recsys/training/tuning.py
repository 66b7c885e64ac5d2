"""Search the settings of fusion, users and rankers by what ranks best before the split."""

import logging
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from pydantic import BaseModel

from recsys.config import TrainConfig
from recsys.errors import DataError, InvalidArgumentError, TrainingError
from recsys.training.inputs import Material, ShopData
from recsys.training.known import KnownItems
from recsys.training.stages import Runtime, Workspace
from recsys.training.trials import TRIAL, Trial, run_trial
from vision.tuning.hyperparameters import (
    check_optuna,
    propose,
    tell,
    to_distributions,
    without_log_lines,
)
from vision.tuning.space import Bounds, Resolved

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger(__name__)

FOLDER = "tuning"  # in the folder of the stages
FEWEST = 2  # the first trial is the configuration as given
DIGITS = 3  # of a fraction that is tried, so that people can read the result

# The networks of fusion and users come in few values, so that trials share their stages.
SPACE: Resolved = {
    "fusion.dim": (64, 128, 256),
    "fusion.dropout": (0.1, 0.3, 0.5),
    "fusion.pair_weight": (0.25, 0.5, 1.0, 2.0),
    "users.depth": (0, 1),
    "users.history_length": (25, 50, 100, 200),
    "users.horizon_days": (7.0, 14.0, 28.0),
    "ranker.n_candidates": (200, 400, 800),
    "ranker.hide_events": (0.0, 0.03, 0.1),
    "ranker.trees.trees": Bounds(50, 400, log=True),
    "ranker.trees.leaves": Bounds(7, 63, log=True),
    "ranker.trees.learning_rate": Bounds(0.02, 0.2, log=True),
    "ranker.trees.min_candidates": Bounds(10, 200, log=True),
    "ranker.trees.feature_share": Bounds(0.4, 1.0, log=False),
}
ALIGNED = ("fusion.dim", "fusion.dropout")  # the towers were aligned with a fusion of these

Table = TypeVar("Table", bound=BaseModel)


class Tuning(NamedTuple):
    """What a search found.

    Args:
        config: Settings of the best trial if it is clearly better than the first, else those that
            were given.
        changed: Fields in which these differ from what was given, each with both values.
        trials: All trials; the first is the configuration as given.
        gained: NDCG@10 of the best trial less that of the first.
        error: Standard error of this difference, paired by user.
    """

    config: TrainConfig
    changed: Mapping[str, tuple[Any, Any]]
    trials: Sequence[Trial]
    gained: float
    error: float

    @property
    def sentence(self) -> str:
        """Sentence that says what was tried, what was changed, and by how much it was better."""
        given = self.trials[0].ndcg
        figures = (
            f"NDCG@10 {given + self.gained:.4f} on the last window before the split, against "
            f"{given:.4f} with the settings as given (difference {self.gained:.4f}, standard error "
            f"{self.error:.4f})"
        )
        if not self.changed:
            return (
                f"{len(self.trials)} trials, none of them better than the settings as given by "
                f"more than one standard error, so these stay. The best had {figures}"
            )
        changed = ", ".join(f"{name} {old} -> {new}" for name, (old, new) in self.changed.items())
        return (
            f"{len(self.trials)} trials, of which the best is taken: {changed}. It has "
            f"{figures}. The best of many noisy trials looks better than it is, so judge it by the "
            "events after the split"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the search as JSON values; the NDCG@10 of a trial that failed is None."""
        trials = [
            {"ndcg": None if one.users is None else one.ndcg, "values": dict(one.values)}
            for one in self.trials
        ]
        changed = {name: {"from": old, "to": new} for name, (old, new) in self.changed.items()}
        return {
            "changed": changed,
            "gained": self.gained,
            "error": self.error,
            "trials": trials,
        }


def check_tuning(shop: ShopData, n_trials: int) -> None:
    """Raise unless settings can be searched for a shop.

    Raises:
        InvalidArgumentError: If there are too few trials.
        DataError: If no events can train ranking, by which trials are compared.
        MissingExtraError: If Optuna is not installed.
    """
    if n_trials < FEWEST:
        raise InvalidArgumentError(
            f"tune must be at least {FEWEST} trials, the first with the settings as given, got "
            f"{n_trials}"
        )
    if shop.behaviour is None:
        raise DataError(
            "tune compares settings by how they rank what users take, and needs events that can "
            f"train ranking, got none ({shop.left_out['ranking']}); add events, or train without "
            "tune"
        )
    check_optuna()


def tune_settings(
    material: Material,
    items: KnownItems,
    config: TrainConfig,
    runtime: Runtime,
    *,
    n_trials: int,
    announce: Callable[[str], None] = lambda trial: None,
) -> Tuning:
    """Return the settings that rank best in the last window before the split.

    A tree-structured Parzen estimator proposes them (TPE; Bergstra et al., 2011,
    https://papers.nips.cc/paper/4443) as in Optuna, except that every proposal depends only on the
    seed and the earlier trials. A trial trains fusion, user encoder and rankers on what happened
    before that window, and reads nothing that happened from the split on. The best trial is taken
    if it is better than the settings as given by more than one standard error of the difference.

    Each trial is a stage, so an interrupted search goes on with the trial that it was in, and a
    longer search with those of a shorter one. Only the networks of the best trial are kept, until
    the search ends.

    Args:
        material: Training inputs of a shop with events.
        items: What the events said of the items.
        config: Settings to start from.
        runtime: How to run the stages.
        n_trials: Number of trials, with those of earlier runs.
        announce: Called with the number of each trial before it runs.

    Raises:
        TrainingError: If the settings as given cannot be trained.
        DataError: If nobody can be asked in the last window before the split.
    """
    import optuna

    space = search_space(config, aligned=material.start is not None)
    trials: list[Trial] = []

    def began(stage: str) -> None:
        if stage == TRIAL:
            announce(f"{TRIAL} {len(trials) + 1} of {n_trials}")

    place = Workspace(runtime.workspace.root / FOLDER, announce=began)
    quiet = replace(runtime, workspace=place, progress=False)
    with without_log_lines():
        study = optuna.create_study(direction="maximize")
        for number in range(n_trials):
            asked, values = _propose(study, space, config, number)
            trial = run_trial(material, items, with_values(config, values), quiet, values=values)
            if trial.users is None and not trials:
                raise TrainingError("the settings as given cannot be trained; see the log for why")
            trials.append(trial)
            tell(study, asked, trial.ndcg if trial.users is not None else None)
            logger.info("trial %d of %d: %.4f, %s", number + 1, n_trials, trial.ndcg, values)
            if not place.stages[-1].skipped:
                _remove_networks(place.root, but=max(trials, key=lambda one: one.ndcg).stages)
    _remove_networks(place.root)
    return choose_settings(config, trials)


def search_space(config: TrainConfig, *, aligned: bool) -> Resolved:
    """Return the values to try of each field that matters, with those of the configuration.

    Args:
        config: Settings as given.
        aligned: Whether the towers were aligned with a fusion, whose size is then settled.
    """
    space: Resolved = {}
    for name, domain in SPACE.items():
        given = get_value(config, name)
        unread = name.startswith("ranker.trees.") and config.ranker.kind == "network"
        if unread or (aligned and name in ALIGNED):
            continue
        if isinstance(domain, Bounds):
            space[name] = Bounds(min(domain.low, given), max(domain.high, given), domain.log)
        else:
            space[name] = domain if given in domain else (given, *domain)
    return space


def choose_settings(config: TrainConfig, trials: Sequence[Trial]) -> Tuning:
    """Return the best trial if it is better than the first by more than one standard error.

    Both are measured on the same users, so the error is that of the paired difference, as in
    ``choose_ranker``.

    Args:
        config: Settings as given, which are those of the first trial.
        trials: All trials.
    """
    first, best = trials[0], max(trials, key=lambda one: one.ndcg)
    assert first.users is not None, "the first trial was trained"
    assert best.users is not None, "no trial is worse than one that failed"
    lead = best.users - first.users
    gained, error = float(lead.mean()), float(lead.std() / np.sqrt(len(lead)))
    if gained <= error:
        return Tuning(config, {}, trials, gained, error)
    changed = {
        name: (first.values[name], value)
        for name, value in best.values.items()
        if value != first.values[name]
    }
    return Tuning(with_values(config, best.values), changed, trials, gained, error)


def get_value(config: BaseModel, name: str) -> Any:
    """Return the value of a field, by its dotted name."""
    return reduce(getattr, name.split("."), config)


def with_values(table: Table, values: Mapping[str, Any]) -> Table:
    """Return a copy of a configuration with these values of fields, by their dotted names."""
    for name, value in values.items():
        field, _, inner = name.partition(".")
        new = with_values(getattr(table, field), {inner: value}) if inner else value
        table = table.model_copy(update={field: new})
    return table


def _propose(
    study: "optuna.Study", space: Resolved, config: TrainConfig, number: int
) -> tuple["optuna.Trial", dict[str, Any]]:
    """Return the next trial and its values; those of the first are the configuration's."""
    given = {name: get_value(config, name) for name in space}
    if not number:
        study.enqueue_trial(given)
    asked = propose(study, to_distributions(space), seed=config.seed, number=number)
    if not number:
        return asked, given
    values = {
        name: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
        for name, value in asked.params.items()
    }
    return asked, values


def _remove_networks(root: Path, but: Collection[str] = ()) -> None:
    """Remove all folders of stages but these and the records of the trials."""
    for folder in root.iterdir():
        if not folder.name.startswith(f"{TRIAL}-") and folder.name not in but:
            shutil.rmtree(folder)
