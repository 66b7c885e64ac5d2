"""Hyperparameter search with Optuna, which continues after an interruption."""

import contextlib
import hashlib
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
from lightning.pytorch import Callback, LightningModule, Trainer
from pydantic import ValidationError

from vision.config import VisionConfig
from vision.dataset import UNKNOWN, Samples
from vision.device import Device, resolve_device
from vision.errors import InvalidArgumentError, MissingExtraError, TrainingError
from vision.file_states import hash_weights
from vision.finetuning import FinetuneResult, finetune_run
from vision.networks.start import decide_start, warn_of_random_weights
from vision.training.recipe import decide_recipe
from vision.training.run import TrainingRun
from vision.tuning.space import Bounds, Resolved, SearchSpace, resolve_space, with_values

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

logger = logging.getLogger(__name__)

# Number of trials that are trained to the end before later ones are pruned by comparison.
UNPRUNED_TRIALS = 5


@dataclass(frozen=True)
class SearchPlan:
    """What a search tries, how often, and how it compares.

    Attributes:
        space: Fields of the configuration to search, with their ranges or choices.
        n_trials: Total number of trials, with pruned trials and those of earlier calls.
        seed: Random seed of the proposals and of every trial's training.
        metric: Name of a metric of ``finetune``. ``loss`` is minimised, every other metric is
            maximised. None is the accuracy of the last target.
    """

    space: SearchSpace
    n_trials: int
    seed: int
    metric: str | None = None


class SearchResult(NamedTuple):
    """The best configuration, and a table of all trials."""

    best: VisionConfig
    value: float  # of the metric
    trials: pl.DataFrame  # number, state, value, measured epochs, and each searched field


def search_hyperparameters(
    samples: Samples,
    validation: Samples,
    config: VisionConfig,
    plan: SearchPlan,
    *,
    workdir: Path,
    progress: bool = False,
    device: Device = "auto",
) -> SearchResult:
    """Return the best configuration among those that a tree-structured Parzen estimator proposes.

    TPE (Bergstra et al., 2011, https://papers.nips.cc/paper/4443) as in Optuna, except that every
    proposal depends only on the seed and the earlier trials. A trial is pruned after an epoch if
    its best value so far is worse than the median of earlier trials at that epoch. It also counts
    as pruned if its loss is not finite or its values contradict each other. The study is
    ``workdir/study.db``, with the checkpoint of a running trial beside it. Called again after an
    interruption, the search continues from both and ends with the same result.

    Args:
        samples: Pictures and labels to train on.
        validation: Pictures that trials are compared on. The best value is that of the luckiest
            trial, so measure the chosen configuration on other pictures.
        config: Values of all fields that are not searched. The curves of trials are kept if
            ``tracking`` has a folder.
        plan: What to search, how often, and by which metric.
        workdir: Folder of the study, for one search at a time. The caller deletes it.
        progress: Whether to show Lightning's progress bars.
        device: Device to compute on, see ``finetune``.

    Raises:
        MissingExtraError: If Optuna is not installed.
        InvalidArgumentError: If the space does not fit the configuration, or the validation
            pictures do not give the metric; the message lists those that they give.
        TrainingError: If every trial failed, or workdir has another search.
    """
    check_optuna()
    if plan.n_trials < 1:
        raise InvalidArgumentError(f"n_trials must be at least 1, got {plan.n_trials}")
    if not samples.classes:
        raise InvalidArgumentError(
            "samples must have at least one target, got none: nothing to learn from"
        )
    warn_of_random_weights(config)
    # Here, as a trial sets every field and so leaves nothing for the rule to decide.
    config = decide_recipe(decide_start(config), samples)
    metric = plan.metric or f"accuracy/{list(samples.classes)[-1]}"
    _check_metric(metric, validation)
    distributions = to_distributions(resolve_space(plan.space, config))
    settings = f"{config!r} {hash_weights(config)} {plan.space!r} {metric} {plan.seed}"
    identity = _fingerprint(samples, validation, settings)
    place = resolve_device(device)
    workdir.mkdir(parents=True, exist_ok=True)
    with _open_study(workdir / "study.db", identity, metric, config) as study:
        measured = _enqueue_interrupted(study)
        while (number := len(_finished(study))) < plan.n_trials:
            trial = propose(study, distributions, seed=plan.seed, number=number)
            folder = workdir / f"trial-{number}"
            run = partial(
                finetune_run,
                samples,
                run=TrainingRun(folder, plan.seed, place, progress),
                validation=validation,
                callbacks=[ReportTrial(trial, metric, measured)],
            )
            value = _measure(run, config, trial, metric)
            tell(study, trial, value)
            logger.info("trial %d of %d: %s, %s", number + 1, plan.n_trials, trial.params, value)
            # The checkpoint can be computed again, and a hundred of them would fill a disk.
            shutil.rmtree(folder, ignore_errors=True)
            measured = {}
        return _best_of(study, config)


def _check_metric(metric: str, validation: Samples) -> None:
    # A target without a known label has no accuracy; see Learner.on_validation_epoch_end.
    labelled = [name for name, labels in validation.targets.items() if (labels != UNKNOWN).any()]
    known = [*(f"accuracy/{name}" for name in labelled), "loss"]
    if metric not in known:
        raise InvalidArgumentError(f"metric must be one of {', '.join(known)}, got {metric!r}")


def check_optuna() -> None:
    """Raise unless Optuna is installed.

    Raises:
        MissingExtraError: If it is not; the message has the command that installs it.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "a hyperparameter search needs Optuna: pip install 'vitrine-recsys[search]'"
        ) from error


def to_distributions(resolved: Resolved) -> "dict[str, BaseDistribution]":
    """Return Optuna's distribution of every field of a search space."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    def convert(domain: Bounds | tuple[bool | int | float | str, ...]) -> "BaseDistribution":
        if not isinstance(domain, Bounds):
            return CategoricalDistribution(domain)
        if isinstance(domain.low, int) and isinstance(domain.high, int):
            return IntDistribution(domain.low, domain.high, log=domain.log)
        return FloatDistribution(domain.low, domain.high, log=domain.log)

    return {name: convert(domain) for name, domain in resolved.items()}


def propose(
    study: "optuna.Study", distributions: "dict[str, BaseDistribution]", *, seed: int, number: int
) -> "optuna.Trial":
    """Return the next trial of a study; it depends only on the seed and the earlier trials.

    Args:
        study: Study to continue.
        distributions: Distribution of every searched field.
        seed: Random seed of the search.
        number: Number of finished trials.
    """
    import optuna

    # With one seed for the whole search, a continued search would propose its first trials again.
    own_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    study.sampler = optuna.samplers.TPESampler(seed=own_seed)
    return study.ask(distributions)


def tell(study: "optuna.Study", trial: "optuna.Trial", value: float | None) -> None:
    """Record the value of a trial; a trial without one counts as worse than every other."""
    import optuna

    pruned = optuna.trial.TrialState.PRUNED if value is None else None
    study.tell(trial, value, state=pruned)


@contextlib.contextmanager
def without_log_lines() -> Iterator[None]:
    """Keep Optuna from printing a line for every trial."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _fingerprint(samples: Samples, validation: Samples, settings: str) -> str:
    """Return a digest of everything that the result depends on, which identifies the search."""
    everything = f"{settings} {samples.fingerprint()} {validation.fingerprint()}"
    return hashlib.sha256(everything.encode()).hexdigest()


@contextlib.contextmanager
def _open_study(
    path: Path, identity: str, metric: str, config: VisionConfig
) -> "Iterator[optuna.Study]":
    """Yield the study in the file, created if missing, with Optuna's log lines switched off."""
    import optuna

    with contextlib.ExitStack() as cleanup:
        cleanup.enter_context(without_log_lines())
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        cleanup.callback(storage.engine.dispose)
        cleanup.callback(storage.remove_session)
        study = optuna.create_study(
            study_name="search",
            storage=storage,
            load_if_exists=True,
            direction="minimize" if metric == "loss" else "maximize",
            # Before the learning rate has warmed up, all trials are equally bad.
            pruner=optuna.pruners.MedianPruner(UNPRUNED_TRIALS, math.ceil(config.warmup_epochs)),
        )
        if study.user_attrs.get("identity", identity) != identity:
            raise TrainingError(
                f"{path} belongs to a search with other samples, configuration, space, metric or "
                "seed; delete it or choose another workdir"
            )
        study.set_user_attr("identity", identity)
        yield study


def _enqueue_interrupted(study: "optuna.Study") -> Mapping[int, float]:
    """Let the study propose the interrupted trial again.

    Returns:
        The values that it had measured, by epoch. Its checkpoint has these epochs, so they are not
        run again.
    """
    from optuna.trial import TrialState

    measured: Mapping[int, float] = {}
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)
        measured = trial.intermediate_values
    return measured


def _finished(study: "optuna.Study") -> "list[optuna.trial.FrozenTrial]":
    from optuna.trial import TrialState

    return study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))


class _PrunedError(Exception):
    """Ends a trial that is worse than earlier ones were."""


class ReportTrial(Callback):
    """Reports the metric to a trial after every epoch, and ends the trial if it is pruned."""

    def __init__(self, trial: "optuna.Trial", metric: str, measured: Mapping[int, float]) -> None:
        self.trial, self.metric, self.measured = trial, metric, set(measured)
        for epoch, value in measured.items():
            trial.report(value, epoch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the metric of the epoch that was just validated.

        Raises:
            InvalidArgumentError: If every picture that the metric needs is unreadable.
        """
        name = f"validation/{self.metric}"
        if name not in trainer.callback_metrics:
            raise InvalidArgumentError(
                f"{self.metric} needs a readable validation picture with a known label, got none"
            )
        # An epoch that was measured but is not in the checkpoint yet is run again.
        if trainer.current_epoch not in self.measured:
            value = float(trainer.callback_metrics[name])
            self.trial.report(value, trainer.current_epoch)
        if self.trial.should_prune():
            raise _PrunedError(f"after epoch {trainer.current_epoch} of {self.metric}")


def _measure(
    run: Callable[[VisionConfig], FinetuneResult],
    config: VisionConfig,
    trial: "optuna.Trial",
    metric: str,
) -> float | None:
    """Return the metric of the trial's tower, or None if the trial did not reach its end."""
    try:
        value = run(with_values(config, trial.params)).metrics[metric]
    except _PrunedError:
        return None
    except (TrainingError, ValidationError) as error:
        logger.warning("a trial with %s cannot be trained: %s", trial.params, error)
        return None
    # Optuna refuses a value that it cannot compare.
    return None if math.isnan(value) else value


def _best_of(study: "optuna.Study", config: VisionConfig) -> SearchResult:
    """Return the best configuration of a study and a table of its finished trials."""
    finished = _finished(study)
    complete = [trial for trial in finished if trial.state.name == "COMPLETE"]
    if not complete:
        raise TrainingError(f"none of {len(finished)} trials could be trained; see the log for why")
    rows = [
        {
            "number": number,
            "state": trial.state.name.lower(),
            "value": trial.value,
            "measured_epochs": len(trial.intermediate_values),
            **trial.params,
        }
        for number, trial in enumerate(finished)
    ]
    # The choices of one field may have different types.
    trials = pl.DataFrame(rows, infer_schema_length=None, strict=False)
    best = study.best_trial
    return SearchResult(with_values(config, best.params), study.best_value, trials)
