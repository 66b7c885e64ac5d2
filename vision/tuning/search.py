"""Search hyperparameters with Optuna; a search that was killed ends as if it had not been."""

import contextlib
import hashlib
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
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
from vision.finetuning import FinetuneResult, finetune_run
from vision.training.run import TrainingRun
from vision.tuning.space import Bounds, Resolved, SearchSpace, resolve_space, with_values

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

logger = logging.getLogger(__name__)

# Trials that are trained to their end before any is held against them.
UNPRUNED = 5


class SearchResult(NamedTuple):
    """The best configuration, and all that was tried."""

    best: VisionConfig
    value: float  # of the searched metric
    trials: pl.DataFrame  # number, state, value, measured epochs, and each searched field


def search(
    samples: Samples,
    validation: Samples,
    config: VisionConfig,
    space: SearchSpace,
    *,
    n_trials: int,
    workdir: Path,
    seed: int,
    metric: str | None = None,
    progress: bool = False,
    device: Device = "auto",
) -> SearchResult:
    """Return the best of the configurations that a tree-structured Parzen estimator proposes.

    TPE (Bergstra et al., 2011, https://papers.nips.cc/paper/4443) as in Optuna, but every proposal
    is drawn from the seed and the number of trials before it alone. A trial is pruned after an
    epoch if it never was as good as the median trial had become by then, or if its loss is not
    finite or its values do not go together. The study is ``workdir/study.db``, a running trial's
    checkpoint is beside it; called again, the search goes on from both.

    Args:
        samples: Pictures and labels to learn from.
        validation: Pictures that trials are compared on. The best value is that of the luckiest
            trial: measure what is chosen on other pictures.
        config: All that is not searched. Curves of the trials are kept where tracking has a folder.
        space: What is tried.
        n_trials: Trials in all, those pruned and those of earlier calls included.
        workdir: Folder of the study, for one search at a time; the caller's to delete.
        seed: Seed of the proposals and of every trial's training.
        metric: As ``finetune`` names it; ``loss`` is made small, any other large. Unset is the
            accuracy of the last target.
        progress: Show Lightning's progress bars.
        device: Where to compute; as for ``finetune``.

    Raises:
        MissingExtraError: If Optuna is not installed.
        InvalidArgumentError: If the space does not fit the configuration, or the validation
            pictures give no such metric; names those that they give.
        TrainingError: If no trial reached its end, or workdir holds another search.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError(
            "a hyperparameter search needs Optuna: pip install 'vitrine-recsys[search]'"
        ) from error
    if n_trials < 1:
        raise InvalidArgumentError(f"n_trials must be at least 1, got {n_trials}")
    if not samples.classes:
        raise InvalidArgumentError(
            "samples must have at least one target, got none: nothing to learn from"
        )
    metric = metric or f"accuracy/{list(samples.classes)[-1]}"
    _check_metric(metric, validation)
    distributions = _distributions(resolve_space(space, config))
    identity = _fingerprint(samples, validation, f"{config!r} {space!r} {metric} {seed}")
    place = resolve_device(device)
    workdir.mkdir(parents=True, exist_ok=True)
    with _open_study(workdir / "study.db", identity, metric, config) as study:
        measured = _take_back(study)
        while (number := len(_finished(study))) < n_trials:
            study.sampler = optuna.samplers.TPESampler(seed=_sampler_seed(seed, number))
            trial = study.ask(distributions)
            folder = workdir / f"trial-{number}"
            run = partial(
                finetune_run,
                samples,
                run=TrainingRun(folder, seed, place, progress),
                validation=validation,
                callbacks=[_Report(trial, metric, measured)],
            )
            value = _measure(run, config, trial, metric)
            pruned = optuna.trial.TrialState.PRUNED if value is None else None
            study.tell(trial, value, state=pruned)
            logger.info("trial %d of %d: %s, %s", number + 1, n_trials, trial.params, value)
            # All of it follows from the configuration; a hundred checkpoints would fill a disk.
            shutil.rmtree(folder, ignore_errors=True)
            measured = {}
        return _conclude(study, config)


def _check_metric(metric: str, validation: Samples) -> None:
    # A target without a label has no accuracy; see Learner.on_validation_epoch_end.
    labelled = [name for name, of in validation.targets.items() if (of != UNKNOWN).any()]
    known = [*(f"accuracy/{name}" for name in labelled), "loss"]
    if metric not in known:
        raise InvalidArgumentError(f"metric must be one of {', '.join(known)}, got {metric!r}")


def _distributions(resolved: Resolved) -> "dict[str, BaseDistribution]":
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


def _fingerprint(samples: Samples, validation: Samples, settings: str) -> str:
    """Return a digest of what a search depends on, so that no other search is continued."""
    digest = hashlib.sha256(settings.encode())
    for part in (samples, validation):
        digest.update(repr((part.classes, [str(image) for image in part.images])).encode())
        for labels in part.targets.values():
            digest.update(labels.tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def _open_study(
    path: Path, identity: str, metric: str, config: VisionConfig
) -> "Iterator[optuna.Study]":
    """Yield the study in the file, made if it is not there; Optuna is silent meanwhile."""
    import optuna

    with contextlib.ExitStack() as cleanup:
        cleanup.callback(optuna.logging.set_verbosity, optuna.logging.get_verbosity())
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        cleanup.callback(storage.engine.dispose)
        cleanup.callback(storage.remove_session)
        study = optuna.create_study(
            study_name="search",
            storage=storage,
            load_if_exists=True,
            direction="minimize" if metric == "loss" else "maximize",
            # Before the learning rate is up, all trials are equally bad.
            pruner=optuna.pruners.MedianPruner(UNPRUNED, math.ceil(config.warmup_epochs)),
        )
        if study.user_attrs.get("identity", identity) != identity:
            raise TrainingError(
                f"{path} is of a search with other samples, configuration, space, metric or seed; "
                "delete it or choose another workdir"
            )
        study.set_user_attr("identity", identity)
        yield study


def _take_back(study: "optuna.Study") -> Mapping[int, float]:
    """Have the trial that was running when a search was killed asked again.

    Returns:
        What it had measured, by epoch: these epochs are in its checkpoint and not run again.
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


def _sampler_seed(seed: int, number: int) -> int:
    # A sampler seeded once would, when a search is continued, propose its first trials again.
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


class _PrunedError(Exception):
    """Ends a trial that is worse than others were."""


class _Report(Callback):
    """Tells a trial its metric after every epoch, and ends it if it is to be pruned."""

    def __init__(self, trial: "optuna.Trial", metric: str, measured: Mapping[int, float]) -> None:
        self.trial, self.metric, self.measured = trial, metric, set(measured)
        for epoch, value in measured.items():
            trial.report(value, epoch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the epoch that was just validated.

        Raises:
            InvalidArgumentError: If no picture that the metric needs could be read.
        """
        name = f"validation/{self.metric}"
        if name not in trainer.callback_metrics:
            raise InvalidArgumentError(
                f"{self.metric} needs a validation picture with a label that can be read, got none"
            )
        # An epoch that was measured, but not yet in the checkpoint, is run again.
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
    """Return the metric of the trial's tower; none if the trial did not reach its end."""
    try:
        value = run(with_values(config, trial.params)).metrics[metric]
    except _PrunedError:
        return None
    except (TrainingError, ValidationError) as error:
        logger.warning("a trial with %s cannot be trained: %s", trial.params, error)
        return None
    # Optuna takes no value that it cannot compare.
    return None if math.isnan(value) else value


def _conclude(study: "optuna.Study", config: VisionConfig) -> SearchResult:
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
    # Choices of one field may be of different types.
    trials = pl.DataFrame(rows, infer_schema_length=None, strict=False)
    best = study.best_trial
    return SearchResult(with_values(config, best.params), study.best_value, trials)
