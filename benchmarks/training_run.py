"""Train a configuration as ``recsys train`` does, and read figures from its report."""

import shutil
import sys
import time
from pathlib import Path
from typing import NamedTuple

from recsys.config import TrainConfig, load_config
from recsys.evaluation.bootstrap import Estimate
from recsys.evaluation.page import write_report
from recsys.evaluation.results import RankingTable, Report
from recsys.evaluation.run_report import report_run
from recsys.pipeline import Run, train


class Measured(NamedTuple):
    """A training run, its report, and how many seconds training took."""

    run: Run
    report: Report
    seconds: float


def measure(
    config_path: Path, out: Path, *, resume: bool = False, seed: int | None = None
) -> Measured:
    """Train and evaluate; the measured time is that of training only.

    Args:
        config_path: Path of the configuration.
        out: Folder to write the bundle to.
        resume: Whether to keep the finished stages of an earlier run; if not, ``out`` is emptied.
        seed: Random seed to use in place of the configuration's.
    """
    config: TrainConfig = load_config(config_path)
    if seed is not None:
        config = config.model_copy(update={"seed": seed})
    return train_and_report(config, out, resume=resume)


def train_and_report(config: TrainConfig, out: Path, *, resume: bool = False) -> Measured:
    """Train and evaluate a configuration; see :func:`measure`."""
    if not resume:
        shutil.rmtree(out, ignore_errors=True)
    start = time.perf_counter()
    run = train(
        config,
        out,
        progress=sys.stderr.isatty(),
        announce=lambda stage: print(f"{time.perf_counter() - start:7.1f} s  {stage}", flush=True),
    )
    seconds = time.perf_counter() - start
    report = report_run(run, config.evaluation, title=config.name)
    page = write_report(report, out)
    print(f"trained in {seconds:.0f} s; bundle {run.bundle}; report {page}")
    return Measured(run, report, seconds)


def table(report: Report, scope: str) -> RankingTable:
    """Return the ranking table of a scope.

    Raises:
        ValueError: If the report does not have the scope.
    """
    for one in report.rankings:
        if one.scope == scope:
            return one
    raise ValueError(
        f"report must have the scope {scope!r}, got {[t.scope for t in report.rankings]}"
    )


def metric(one: RankingTable, system: str, name: str) -> Estimate:
    """Return one metric of a system.

    Raises:
        ValueError: If the system is not in the table.
    """
    for row in one.systems:
        if row.name == system:
            return row.metrics[name]
    raise ValueError(f"system must be one of {[row.name for row in one.systems]}, got {system!r}")
