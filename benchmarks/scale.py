"""Train the default configuration on a large generated shop, and measure time and memory by stage.

Run from the repository's root: ``python -m benchmarks.scale 10_000_000 100_000``, with the numbers
of events and of items. The shop is generated once into ``out/scale``. Training and its report run
in a process of their own, whose peak memory is what the operating system says of it.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from benchmarks.record import record
from recsys.config import DataConfig, TrainConfig
from recsys.data.arrays import Doubles, Ints
from recsys.evaluation.page import write_report
from recsys.evaluation.run_report import report_run
from recsys.evaluation.systems import OURS
from recsys.pipeline import train

OUT = Path("out/scale")
MEASURED = "measured.json"
START, DAYS = datetime(2024, 1, 1, tzinfo=UTC), 730
EVENTS_OF_USER, VISITS, STYLES, MONTHS = 20, (2, 8), 8, 24
ITEMS_OF_TOPIC = 400
REPEATS, STRAYS = 0.25, 0.05  # shares of events with an item the user has, and with any item


class Items(NamedTuple):
    """What decides which items are taken: topic, style, day of appearance and appeal, each (N,)."""

    topics: Ints
    styles: Ints
    appears: Doubles
    appeal: Doubles


def write_shop(n_events: int, n_items: int, folder: Path) -> None:
    """Write ``items.parquet`` and ``events.parquet`` of a shop of about these sizes.

    A user has a style and three topics, stays with one topic in a visit, and takes items of the
    style more often. Everything is drawn for all events at once.
    """
    rng = np.random.default_rng([n_events, n_items])
    n_topics = max(4, n_items // ITEMS_OF_TOPIC)
    items = Items(
        topics=rng.integers(0, n_topics, n_items),
        styles=rng.integers(0, STYLES, n_items),
        appears=rng.uniform(-DAYS, 0.95 * DAYS, n_items),
        appeal=rng.pareto(1.2, n_items) + 0.1,
    )
    folder.mkdir(parents=True, exist_ok=True)
    _item_table(items, n_topics, rng).write_parquet(folder / "items.parquet")
    events = _events(items, n_topics, n_events, rng)
    events.write_parquet(folder / "events.parquet.part")
    (folder / "events.parquet.part").rename(folder / "events.parquet")  # it is whole now


def _item_table(items: Items, n_topics: int, rng: np.random.Generator) -> pl.DataFrame:
    n_items = len(items.topics)
    words = {
        "topic": items.topics * 5 + rng.integers(0, 5, n_items),
        "style": n_topics * 5 + items.styles,
        "other": n_topics * 5 + STYLES + rng.integers(0, 300, n_items),
    }
    created = [START + timedelta(days=max(0.0, day)) for day in items.appears.tolist()]
    return pl.DataFrame(
        {
            "item_id": [f"i{n:06}" for n in range(n_items)],
            "title": [
                " ".join(map(_word, numbers)) for numbers in zip(*words.values(), strict=True)
            ],
            "category": [f"Topic {topic}" for topic in items.topics.tolist()],
            "price": np.exp(rng.normal(2.5, 0.8, n_items)).round(2),
            "created_at": created,
        }
    )


def _word(number: int) -> str:
    """Return a word of six letters or more that no other number has."""
    syllables = []
    for _ in range(3):
        number, rest = divmod(int(number), 75)
        syllables.append("bcdfghklmnprstv"[rest % 15] + "aeiou"[rest // 15])
    return "".join(syllables)


def _events(items: Items, n_topics: int, n_events: int, rng: np.random.Generator) -> pl.DataFrame:
    n_users = n_events // EVENTS_OF_USER
    visitors = np.repeat(np.arange(n_users), rng.integers(VISITS[0], VISITS[1] + 1, n_users))
    arrives = rng.uniform(-0.3 * DAYS, 0.9 * DAYS, n_users)
    days = arrives[visitors] + rng.uniform(0, 0.5 * DAYS, len(visitors))
    tastes = rng.integers(0, n_topics, (n_users, 3))
    topics = tastes[visitors, rng.choice(3, len(visitors), p=[0.5, 0.3, 0.2])]
    inside = (days >= 0) & (days < DAYS)
    visitors, days, topics = visitors[inside], days[inside], topics[inside]
    mean = max(1.0, n_events / len(visitors))
    visits = np.repeat(np.arange(len(visitors)), 1 + rng.poisson(mean - 1, len(visitors)))
    # A user's events in order of time, those of a visit one minute apart.
    visits = visits[np.lexsort((days[visits], visitors[visits]))]
    users, topics = visitors[visits], topics[visits]
    first = np.flatnonzero(np.diff(visits, prepend=-1))
    minutes = np.arange(len(visits)) - np.repeat(first, np.diff(first, append=len(visits)))
    styles = rng.integers(0, STYLES, n_users)[users]
    months = (days[visits] * MONTHS / DAYS).astype(np.int64)
    rows = _draw(items, (topics, styles, months), rng)
    others = rng.permutation(rows)
    strays = (rng.random(len(rows)) < STRAYS) & (items.appears[others] < days[visits])
    rows = np.where(strays, others, rows)
    starts = np.searchsorted(users, users)
    earlier = starts + (rng.random(len(rows)) * (np.arange(len(rows)) - starts)).astype(np.int64)
    rows = np.where(rng.random(len(rows)) < REPEATS, rows[earlier], rows)
    us = ((days[visits] + minutes / 1440) * 86_400e6).astype(np.int64)
    return (
        pl.DataFrame({"user": users, "item": rows, "us": us})
        .sort("us")
        .select(
            user_id=pl.format("u{}", "user"),
            item_id=pl.format("i{}", pl.col("item").cast(pl.String).str.zfill(6)),
            kind=pl.lit("purchase"),
            timestamp=pl.lit(START) + pl.duration(microseconds="us"),
        )
    )


def _draw(items: Items, wanted: tuple[Ints, Ints, Ints], rng: np.random.Generator) -> Ints:
    """Return an item row for each event, given its topic, style and month."""
    topics, styles, months = wanted
    keys = (topics * STYLES + styles) * MONTHS + months
    order = np.argsort(keys, kind="stable")
    bounds = np.flatnonzero(np.diff(keys[order], prepend=-1, append=-1))
    of_topic = np.argsort(items.topics, kind="stable")
    ends = np.cumsum(np.bincount(items.topics, minlength=int(topics.max()) + 1))
    found = np.empty(len(keys), dtype=np.int64)
    for start, end in pairwise(bounds.tolist()):
        topic, style, month = (part[order[start]] for part in wanted)
        own = of_topic[ends[topic - 1] if topic else 0 : ends[topic]]
        age = month * DAYS / MONTHS - items.appears[own]
        weights = items.appeal[own] * np.where(items.styles[own] == style, 1.0, 0.1)
        heights = np.cumsum(weights * np.where(age > 0, 0.5 ** (age / 300), 1e-9))
        places = np.searchsorted(heights, rng.random(end - start) * heights[-1], side="right")
        found[order[start:end]] = own[np.minimum(places, len(own) - 1)]
    return found


def train_here(folder: Path) -> None:
    """Train on the tables of a folder, evaluate, and write what it took beside them."""
    stages: list[dict[str, Any]] = []

    def announce(stage: str) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        spent = time.perf_counter(), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6
        stages.append({"stage": stage, "wall": spent[0], "cpu": spent[1], "peak_gb": spent[2]})
        print(f"{spent[1]:8.1f} s cpu {spent[2]:6.2f} GB  {stage}", flush=True)

    config = TrainConfig(
        name=folder.name,
        data=DataConfig(items=f"{folder}/items.parquet", events=f"{folder}/events.parquet"),
    )
    shutil.rmtree(folder / "run", ignore_errors=True)
    run = train(config, folder / "run", announce=announce)
    announce("report")
    figures = report_run(run, config.evaluation, title=config.name)
    write_report(figures, folder / "run")
    announce("end")
    systems = {one.name: one.metrics["ndcg@10"].mean for one in figures.rankings[0].systems}
    size = sum(path.stat().st_size for path in run.bundle.rglob("*") if path.is_file())
    found = {"stages": stages, "ndcg@10": systems, "bundle_gb": size / 1e9}
    found["left_out"] = [*figures.left_out]
    (folder / MEASURED).write_text(json.dumps(found, indent=1))


def main() -> None:
    """Generate the shop if need be, train on it, and record what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events", type=int)
    parser.add_argument("items", type=int)
    parser.add_argument("--only", choices=["shop", "train"], help="do that alone, in this process")
    asked = parser.parse_args()
    folder = (OUT / f"{asked.events}x{asked.items}").resolve()
    if asked.only == "shop":
        write_shop(asked.events, asked.items, folder)
    elif asked.only == "train":
        train_here(folder)
    else:
        _measure(asked.events, asked.items, folder)


def _measure(n_events: int, n_items: int, folder: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.scale", str(n_events), str(n_items)]
    if not (folder / "events.parquet").exists():
        subprocess.run([*command, "--only", "shop"], check=True)
    subprocess.run([*command, "--only", "train"], check=True)
    report(folder, f"events_{n_events}")


def report(folder: Path, name: str) -> None:
    """Print and record what training on the shop in a folder took, by stage and in all."""
    found = json.loads((folder / MEASURED).read_text())
    stages, again = (
        found["stages"],
        " ".join(["python -m benchmarks.scale", *folder.name.split("x")]),
    )

    def note(metric: str, value: float, unit: str) -> None:
        record("scale", f"scale.{name}.{metric}", round(value, 3), unit, again)

    for one, after in pairwise(stages):
        wall, cpu = after["wall"] - one["wall"], after["cpu"] - one["cpu"]
        print(f"{one['stage']:12} {wall:8.1f} s {cpu:8.1f} s cpu {after['peak_gb']:6.2f} GB so far")
        note(f"{one['stage']}.seconds", wall, "s")
    note("seconds", stages[-1]["wall"] - stages[0]["wall"], "s")
    note("cpu_seconds", stages[-1]["cpu"] - stages[0]["cpu"], "s")
    note("peak_gb", stages[-1]["peak_gb"], "GB")
    note("bundle_gb", found["bundle_gb"], "GB")
    ours = found["ndcg@10"].pop(OURS)
    best = max(found["ndcg@10"], key=lambda system: found["ndcg@10"][system])
    note("ndcg@10", ours, "NDCG@10")
    note("ratio_to_best_baseline", ours / found["ndcg@10"][best], "ratio")
    print(f"NDCG@10 {ours:.3f}, best baseline {best} {found['ndcg@10'][best]:.3f}")


if __name__ == "__main__":
    main()
