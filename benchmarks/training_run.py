"""Train a configuration as the command does, and read off its report."""

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
    """A run, its report, and the seconds that training took."""

    run: Run
    report: Report
    seconds: float


def measure(
    config_path: Path, out: Path, *, resume: bool = False, seed: int | None = None
) -> Measured:
    """Train and evaluate; the time is that of training alone.

    Args:
        config_path: A configuration.
        out: Folder of bundles.
        resume: Keep the stages that an earlier run finished; else ``out`` is emptied first.
        seed: Another than the configuration's.
    """
    if not resume:
        shutil.rmtree(out, ignore_errors=True)
    config: TrainConfig = load_config(config_path)
    if seed is not None:
        config = config.model_copy(update={"seed": seed})
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
        ValueError: If the report has none.
    """
    for one in report.rankings:
        if one.scope == scope:
            return one
    raise ValueError(
        f"report must have the scope {scope!r}, got {[t.scope for t in report.rankings]}"
    )


def metric(one: RankingTable, system: str, name: str) -> Estimate:
    """Return a system's metric.

    Raises:
        ValueError: If the system is not in the table.
    """
    for row in one.systems:
        if row.name == system:
            return row.metrics[name]
    raise ValueError(f"system must be one of {[row.name for row in one.systems]}, got {system!r}")
