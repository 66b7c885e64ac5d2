"""Generate logs of three tempos, on which nobody tuned the defaults.

- ``visits``: many people come once each, over five years.
- ``loyal``: few people, with thousands of events each, over two years.
- ``likes``: people like things for some days and leave, over twenty years; nobody buys.

Items have a topic, words of the topic in their titles, a day on which they appear and a popularity
that rises and falls. A person has a few topics, and mostly stays with one topic during a visit.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from recsys.data.arrays import Doubles, Ints

START = datetime(2005, 1, 1, tzinfo=UTC)
TOPICS, WORDS_OF_TOPIC, COMMON_WORDS = 40, 12, 200
_CONSONANTS, _VOWELS = "bcdfghklmnprstvz", "aeiou"


class LogSpec(NamedTuple):
    """Sizes of a generated log.

    Args:
        kind: Kind of the events.
        n_users: Number of people.
        n_items: Number of items.
        days: Length of the log.
        visits: Smallest and largest number of visits of a person.
        stay_days: Days between a person's first and last visit, at most.
        visit_items: Mean number of items of a visit.
        life_days: Half-life of an item's popularity.
        repeat: Share of events that repeat an item which the person took before.
    """

    kind: str
    n_users: int
    n_items: int
    days: int
    visits: tuple[int, int]
    stay_days: float
    visit_items: float
    life_days: float
    repeat: float


SPECS = {
    "visits": LogSpec("purchase", 12_000, 2_500, 1_800, (1, 1), 0.0, 4.0, 400.0, 0.0),
    "loyal": LogSpec("purchase", 80, 1_500, 730, (300, 700), 730.0, 4.0, 300.0, 0.5),
    "likes": LogSpec("like", 900, 6_000, 7_300, (2, 12), 12.0, 6.0, 2_500.0, 0.0),
}


def generate_log(name: str, folder: Path, *, seed: int = 0) -> Path:
    """Write ``items.parquet`` and ``events.parquet`` of one of ``SPECS``, and return the folder."""
    return write_log(SPECS[name], folder, np.random.default_rng([seed, len(name)]))


def write_log(spec: LogSpec, folder: Path, rng: np.random.Generator) -> Path:
    """Write ``items.parquet`` and ``events.parquet`` of a log, and return the folder."""
    topics = rng.integers(0, TOPICS, spec.n_items)
    appears = np.sort(rng.uniform(-0.3 * spec.days, 0.95 * spec.days, spec.n_items))
    folder.mkdir(parents=True, exist_ok=True)
    _items(spec, topics, appears, rng).write_parquet(folder / "items.parquet")
    _events(spec, topics, appears, rng).write_parquet(folder / "events.parquet")
    return folder


def _items(spec: LogSpec, topics: Ints, appears: Doubles, rng: np.random.Generator) -> pl.DataFrame:
    words = [_word(rng) for _ in range(TOPICS * WORDS_OF_TOPIC + COMMON_WORDS)]
    common = words[TOPICS * WORDS_OF_TOPIC :]
    titles = []
    for topic in topics.tolist():
        own = words[topic * WORDS_OF_TOPIC : (topic + 1) * WORDS_OF_TOPIC]
        titles.append(" ".join([*rng.choice(own, 2), *rng.choice(common, 2)]))
    created = [START + timedelta(days=max(0.0, day)) for day in appears.tolist()]
    return pl.DataFrame(
        {
            "item_id": [f"i{n:05}" for n in range(spec.n_items)],
            "title": titles,
            "price": np.exp(rng.normal(2.5, 0.8, spec.n_items)).round(2),
            "created_at": created,
        }
    )


def _word(rng: np.random.Generator) -> str:
    letters = zip(rng.choice(list(_CONSONANTS), 3), rng.choice(list(_VOWELS), 3), strict=True)
    return "".join(a + b for a, b in letters)


def _events(
    spec: LogSpec, topics: Ints, appears: Doubles, rng: np.random.Generator
) -> pl.DataFrame:
    appeal = rng.pareto(1.2, spec.n_items) + 0.1
    rows = [
        row
        for user in range(spec.n_users)
        for row in _person(user, spec, topics, appears, appeal, rng)
    ]
    columns = dict(
        zip(("user", "item", "day"), map(np.array, zip(*rows, strict=True)), strict=True)
    )
    return (
        pl.DataFrame(columns)
        .select(
            user_id=pl.format("u{}", "user"),
            item_id=pl.format("i{}", pl.col("item").cast(pl.String).str.zfill(5)),
            kind=pl.lit(spec.kind),
            timestamp=pl.lit(START)
            + pl.duration(microseconds=(pl.col("day") * 86_400e6).cast(pl.Int64)),
        )
        .sort("timestamp")
    )


def _person(
    user: int,
    spec: LogSpec,
    topics: Ints,
    appears: Doubles,
    appeal: Doubles,
    rng: np.random.Generator,
) -> Iterator[tuple[int, int, float]]:
    """Yield the item and the day of each event of one person."""
    tastes = rng.choice(TOPICS, 4, replace=False)
    tilt = np.exp(rng.normal(0, 0.6, spec.n_items))
    arrives = rng.uniform(0, max(1.0, spec.days - spec.stay_days))
    n_visits = rng.integers(spec.visits[0], spec.visits[1] + 1)
    days = np.sort(arrives + rng.uniform(0, spec.stay_days or 1.0, n_visits))
    taken: list[int] = []
    for day in days.tolist():
        topic = rng.choice(tastes, p=[0.4, 0.3, 0.2, 0.1])
        age = day - appears
        weights = appeal * tilt * np.where(age > 0, 0.5 ** (age / spec.life_days), 0.0)
        weights = weights * np.where(topics == topic, 1.0, 0.02)
        weights = weights / weights.sum()
        chosen = rng.choice(spec.n_items, 1 + rng.poisson(spec.visit_items), p=weights)
        for n, item in enumerate(dict.fromkeys(chosen.tolist())):
            if taken and rng.random() < spec.repeat:
                item = taken[-1 - int(rng.exponential(30)) % len(taken)]
            taken.append(item)
            yield user, item, day + n / 1440
