"""Train the default configuration on logs that nobody tuned it for, beside every baseline.

Run from the repository's root: ``python -m benchmarks.defaults``, or with names of sets to measure
those alone. Nothing is set but the tables, and a protocol where the times of a set need one. The
figure of a set is NDCG@10 on all pairs over that of the best baseline on the same users.

With ``--titles`` a second model is trained on each set, with the titles of other items in place of
each item's own. Nothing else differs, so the difference on the same users is what titles are worth.
"""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from benchmarks.generated_logs import SPECS, generate_log
from benchmarks.published import imported
from benchmarks.record import record
from benchmarks.training_run import Measured, metric, table, train_and_report
from recsys.config import DataConfig, EvaluationConfig, SplitConfig, TrainConfig
from recsys.data.synthetic import generate_shop
from recsys.evaluation.results import RankingTable
from recsys.evaluation.run_report import evaluate
from recsys.evaluation.systems import OURS

COMMAND = "python -m benchmarks.defaults"
OUT = Path("out/defaults")
PUBLISHED = {
    "online_retail": ("online-retail", "online-retail.csv.gz"),
    "amazon_beauty": ("amazon-beauty", "amazon-beauty"),
    "amazon_beauty_new_users": ("amazon-beauty", "amazon-beauty"),
}
# Amazon Beauty is published in each user's order, without times, so no moment splits it.
PROTOCOLS = {
    "amazon_beauty": SplitConfig(protocol="leave_one_out"),
    "amazon_beauty_new_users": SplitConfig(protocol="user_fold"),
}
SHOP = "shop"  # the generated shop with pictures and photos, of another seed than the demo's
SHOP_SEED, SHOP_END = 1, datetime(2025, 1, 1, tzinfo=UTC)
OTHER_TITLES = "titles of other items"


def tables_of(name: str) -> Path:
    """Return the folder with the tables of a set, made if need be."""
    folder = OUT / name / "tables"
    if name in SPECS:
        return generate_log(name, folder)
    if name == SHOP:
        return folder if folder.exists() else _generated_shop(folder)
    return imported(*PUBLISHED[name])


def _generated_shop(folder: Path) -> Path:
    return generate_shop(folder, end=SHOP_END, seed=SHOP_SEED).folder


def config_of(name: str, *, seed: int = 0) -> TrainConfig:
    """Return the default configuration on the tables of a set."""
    folder = tables_of(name).resolve()
    data = DataConfig(items=f"{folder}/items.parquet", events=f"{folder}/events.parquet")
    if name == SHOP:
        more = {"photos": f"{folder}/photos.parquet", "images_root": f"{folder}/images"}
        data = data.model_copy(update=more)
    return TrainConfig(
        name=name,
        seed=seed,
        data=data,
        split=PROTOCOLS.get(name, SplitConfig()),
        evaluation=EvaluationConfig(scopes=("all", "new"), ablations=False),
    )


def with_other_titles(config: TrainConfig, folder: Path, *, seed: int = 0) -> TrainConfig:
    """Return a configuration whose items have the titles and descriptions of other items.

    Args:
        config: Configuration with a table of items.
        folder: Folder to write the changed table to.
        seed: Random seed of the order of the titles.
    """
    assert config.data.items is not None, "config_of names it"
    items = pl.read_parquet(config.data.items, glob=False)
    order = np.random.default_rng(seed).permutation(len(items))
    words = [name for name in ("title", "description") if name in items.columns]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "items.parquet"
    items.with_columns(items.select(words)[order]).write_parquet(path)
    data = config.data.model_copy(update={"items": str(path.resolve())})
    return config.model_copy(update={"data": data})


def gain_of_titles(measured: Measured, config: TrainConfig, out: Path) -> RankingTable:
    """Return the table of all pairs with the model that was trained on other items' titles.

    Args:
        measured: The model that was trained on each item's own.
        config: Its configuration.
        out: Folder for the other tables and bundle.
    """
    other = with_other_titles(config, out / "tables")
    bundle = train_and_report(other, out / "run").run.bundle
    bundles = {OTHER_TITLES: bundle}
    return table(evaluate(measured.run.bundle, config.evaluation, bundles=bundles), "all")


class Figures(NamedTuple):
    """NDCG@10 of our system and of the best baseline, on the same users."""

    ours: float
    best_baseline: float

    @property
    def ratio(self) -> float:
        """Ours over the best baseline."""
        return self.ours / self.best_baseline


def figures_of(one: RankingTable) -> Figures:
    """Return the figures of a table."""
    ndcg = [(row.role, row.metrics["ndcg@10"].mean) for row in one.systems]
    return Figures(
        next(mean for role, mean in ndcg if role == "ours"),
        max(mean for role, mean in ndcg if role == "baseline"),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the sets, print their tables and record the ratios."""
    every = [*PUBLISHED, SHOP, *SPECS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "sets", nargs="*", choices=[*every, []], help="sets to measure; all if none"
    )
    parser.add_argument("--no-record", action="store_true", help="only print")
    parser.add_argument("--titles", action="store_true", help="measure what titles are worth, too")
    options = parser.parse_args(arguments)
    for name in options.sets or every:
        config = config_of(name)
        measured = train_and_report(config, OUT / name / "run")
        for scope in ("all", "new"):
            for row in table(measured.report, scope).systems:
                shown = {key: row.metrics[key] for key in ("ndcg@10", "recall@20")}
                print(name, scope, row.role, row.name, shown, flush=True)
        figures = figures_of(table(measured.report, "all"))
        if name == "amazon_beauty" and not options.no_record:
            _record_beauty(table(measured.report, "all"))
        print(
            f"{name}: {figures}, ratio {figures.ratio:.3f} ({measured.seconds:.0f} s)", flush=True
        )
        if not options.no_record:
            _record(name, figures)
        if options.titles:
            of_titles = gain_of_titles(measured, config, OUT / name / "other_titles")
            _show_titles(name, of_titles, recorded=not options.no_record)


def _show_titles(name: str, one: RankingTable, *, recorded: bool) -> None:
    """Print, and record if wanted, NDCG@10 with other items' titles and what their own add."""
    row = next(row for row in one.systems if row.name == OTHER_TITLES)
    other, less = row.metrics["ndcg@10"], row.behind["ndcg@10"]
    print(f"{name}: {OTHER_TITLES} {other}, own titles less these {less}", flush=True)
    values = {"other_titles.ndcg@10": other.mean, "titles.gain": less.mean}
    for key, value in values.items() if recorded else ():
        again = f"{COMMAND} {name} --titles"
        record("defaults", f"defaults.{name}.{key}", round(value, 4), "ndcg@10", again)


def _record(name: str, figures: Figures) -> None:
    again = f"{COMMAND} {name}"
    values = {
        "ndcg@10": figures.ours,
        "best_baseline.ndcg@10": figures.best_baseline,
        "ratio_to_best_baseline": figures.ratio,
    }
    for key, value in values.items():
        unit = "ratio" if key.startswith("ratio") else "ndcg@10"
        record("defaults", f"defaults.{name}.{key}", round(value, 4), unit, again)


def _record_beauty(one: RankingTable) -> None:
    """Record the figures under the names of the published tables."""
    for name, key in (("hr@10", "hit_rate@10"), ("ndcg@10", "ndcg@10")):
        value = metric(one, OURS, key).mean
        record("beauty", f"beauty.{name}", round(value, 4), key, f"{COMMAND} amazon_beauty")


if __name__ == "__main__":
    main()
