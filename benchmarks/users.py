"""Compare user encoders, and the item tables that they read, on the window before the split.

Run from the repository's root: ``python -m benchmarks.users``, or with names of sets. Every encoder
learns from the events before that window, on one short schedule, and its user vectors alone rank
the catalogue for the users of the window. Nothing after the split is read. A tenth of the items,
drawn at random, lose all events before the window, so that there are cold items to rank. Seconds
are those of the processor.

With ``--ranker`` LambdaMART is trained on the earlier windows instead, as ``recsys train`` does,
once on content and once on smoothed items, and both rank the catalogue for the users of the last.
"""

import argparse
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch

from benchmarks.defaults import PUBLISHED, config_of
from benchmarks.online_retail import CONFIG
from benchmarks.published import imported
from benchmarks.record import record
from recsys.catalogue.store import Catalogue
from recsys.cli.demo import END, Scale
from recsys.config import TrainConfig, UserConfig, load_config
from recsys.data.arrays import Doubles, Floats, Ints
from recsys.data.interactions import Interactions, Moment, last_moment
from recsys.data.synthetic import generate_shop
from recsys.evaluation.bootstrap import difference
from recsys.evaluation.protocol import SystemResult, compare, evaluate
from recsys.evaluation.queries import SCOPES, Queries, build_queries
from recsys.models.user_encoder import UserEncoder
from recsys.pipeline import load_tables
from recsys.ranking.baselines import IALS, cosine_neighbours
from recsys.ranking.rankers import TREES
from recsys.ranking.scoring import encode_users
from recsys.training.cuts import on_offer
from recsys.training.inputs import Behaviour, read_shop
from recsys.training.known import KnownItems, count_events
from recsys.training.rankers import take_snapshots
from recsys.training.ranking import fit_trees, sample_examples
from recsys.training.selection import measure_rankers
from recsys.training.stack import available_from, fuse_items
from recsys.training.stages import STAGES, Runtime, Workspace
from recsys.training.towers import align, embed, train_text, train_vision
from recsys.training.users import train_users
from vision.training.run import TrainingRun

COMMAND = "python -m benchmarks.users"
OUT = Path("out/users")
SETS = ("online_retail", "shop", "loyal", "likes")
COLD_SHARE, SEED = 0.1, 0
# Short, and the same for every encoder. At the default rate a transformer learns nothing at first.
SCHEDULE = {"epochs": 6, "histories_per_epoch": 3_000}
TRANSFORMER = {"depth": 1, "learning_rate": 5e-3}
SHARE = 0.5  # weight of the neighbours, of the factors and of the prices in an item's vector
METRICS = ("ndcg@10", "recall@100")


class Known(NamedTuple):
    """What is known at one moment.

    Args:
        past: Events before the moment.
        now_us: The moment, or that of each user.
        items: Table of ``ItemSchema``.
        embeddings: Fused item embeddings (N, D).
    """

    past: Interactions
    now_us: Moment
    items: pl.DataFrame
    embeddings: Floats


class Variant(NamedTuple):
    """An encoder and the item table that it reads and is scored against.

    Args:
        table: Function from what is known to the table (N, D'); D' may be larger than D.
        changes: Fields of ``UserConfig`` that differ.
    """

    table: Callable[[Known], Floats]
    changes: Mapping[str, Any]


def content(known: Known) -> Floats:
    """Return the fused embeddings as they are."""
    return known.embeddings


def smoothed(known: Known) -> Floats:
    """Return each item's embedding with those of the items that the same users take.

    A neighbour weighs its shrunken cosine over users, so an item of few users moves little, and
    an item without events stays where it is.
    """
    near = cosine_neighbours(known.past.matrix(), n_neighbours=20, shrinkage=10.0)
    mixed = known.embeddings + SHARE * (near @ known.embeddings)
    lengths = np.linalg.norm(mixed, axis=1, keepdims=True)
    return np.asarray(mixed / np.maximum(lengths, 1e-9), dtype=np.float32)


def with_ids(known: Known) -> Floats:
    """Return the embeddings beside a vector that is learned for each item: its factors of iALS.

    Items without events have zeros, so they are scored by content alone.
    """
    now_us = last_moment(known.now_us, known.past)
    factors = IALS().fit(known.past, now_us=now_us).factors.items
    taken = factors[factors.any(axis=1)]
    typical = np.sqrt((taken**2).sum(axis=1).mean())
    return np.hstack([known.embeddings, SHARE * factors / typical]).astype(np.float32)


def with_prices(known: Known) -> Floats:
    """Return the embeddings beside the log price and its square, so that a user can have a usual.

    Both are scaled over the catalogue, and 0 where the price is unknown.
    """
    logs = np.log1p(Catalogue(known.items, known.embeddings).prices)
    scaled = np.nan_to_num((logs - np.nanmean(logs)) / max(float(np.nanstd(logs)), 1e-6))
    columns = np.stack([scaled, (scaled**2 - 1) / 2 * (scaled != 0)], axis=1)
    return np.hstack([known.embeddings, SHARE * columns]).astype(np.float32)


VARIANTS = {
    "regression": Variant(content, {}),
    "regression_prices": Variant(with_prices, {}),
    "regression_ids": Variant(with_ids, {}),
    "regression_smoothed": Variant(smoothed, {}),
    "transformer": Variant(content, TRANSFORMER),
    "transformer_prices": Variant(with_prices, TRANSFORMER),
}


def configured(name: str) -> TrainConfig:
    """Return the configuration of a set, with its tables; the shop is that of the demo."""
    if name == "online_retail":
        imported(*PUBLISHED[name])
        return load_config(CONFIG)
    if name != "shop":
        return config_of(name)
    folder = (OUT / name / "tables").resolve()
    scale = Scale()
    if not folder.exists():
        generate_shop(
            folder,
            end=END,
            n_items=scale.items,
            n_users=scale.users,
            months=scale.months,
            seed=SEED,
        )
    path = folder / "demo.toml"
    path.write_text((resources.files("recsys.cli") / "demo.toml").read_text())
    return load_config(path)


class Shop(NamedTuple):
    """A trained item space, and the events that users and rankers learn from."""

    behaviour: Behaviour
    embeddings: Floats
    config: TrainConfig

    def known_at(self, cut: Moment) -> Known:
        """Return what is known at one of the cuts."""
        past = self.behaviour.interactions.before(cut)
        return Known(past, cut, self.behaviour.items, self.embeddings)


def read_shop_of(config: TrainConfig, runtime: Runtime) -> Shop:
    """Train towers and fusion, unless an earlier run did, and return the shop."""
    shop = read_shop(load_tables(config), config)
    vision = train_vision(shop, config.vision, runtime)
    text = train_text(shop, config.text, runtime)
    material = embed(shop, align(shop, vision, text, config, runtime), runtime)
    assert shop.behaviour is not None, "the sets have events"
    return Shop(shop.behaviour, fuse_items(material, config.fusion, runtime).embeddings, config)


class Window(NamedTuple):
    """The last window before the split: what was known at its start, and what users took in it."""

    known: Known
    queries: Mapping[str, Queries]


def window_of(shop: Shop) -> Window:
    """Return the last window before the split, where some items lost their earlier events."""
    events, (start, end) = shop.behaviour.interactions, shop.behaviour.cuts_us[-2:]
    hidden = np.random.default_rng(SEED).random(events.n_items) < COLD_SHARE
    known = shop.known_at(start)
    known = known._replace(past=known.past.where(~hidden[known.past.item_rows]))
    offered = on_offer(known.items, events, start)
    queries: dict[str, Queries] = {
        scope: build_queries(
            known.past,
            events.between(start, end),
            now_us=start,
            scope=scope,
            target_kinds=shop.behaviour.target_kinds,
            candidates=offered,
        )
        for scope in SCOPES
    }
    return Window(known, queries)


def encoder_of(known: Known, variant: Variant, config: UserConfig, out: Path) -> UserEncoder:
    """Train an encoder on what is known."""
    shutil.rmtree(out, ignore_errors=True)  # an earlier run would be resumed
    return train_users(
        known.past,
        variant.table(known),
        available_from(known.items, known.past),
        config.model_copy(update={**SCHEDULE, **variant.changes}),
        TrainingRun(out, SEED, torch.device("cpu"), False),
    )


class Measured(NamedTuple):
    """Results of a variant by scope, and the seconds that its training took."""

    results: Mapping[str, SystemResult]
    seconds: float


def measure(window: Window, variant: Variant, config: UserConfig, out: Path) -> Measured:
    """Rank by the vectors of an encoder that learned from what was before the window."""
    start = time.process_time()
    encoder = encoder_of(window.known, variant, config, out)
    seconds = time.process_time() - start
    table = torch.from_numpy(variant.table(window.known))
    histories = window.known.past.histories()
    moments = np.broadcast_to(np.asarray(window.known.now_us), (len(histories),))

    @torch.inference_mode()
    def scores(user_rows: Ints) -> Floats:
        some = [histories[row] for row in user_rows.tolist()]
        found: Floats = (encode_users(encoder, some, moments[user_rows], table) @ table.T).numpy()
        return found

    found = {
        scope: evaluate(scope, scores, queries, ks=(10, 100))
        for scope, queries in window.queries.items()
    }
    return Measured(found, seconds)


def rank(shop: Shop, variant: Variant, items: KnownItems, out: Path) -> Mapping[str, Doubles]:
    """Return NDCG@10 by scope of trees whose similarities read the variant's encoder and table.

    The encoder learned before the first window, as in training, and the trees learned from all
    windows but the last.
    """
    config, cuts_us = shop.config.ranker, shop.behaviour.cuts_us
    encoder = encoder_of(shop.known_at(cuts_us[0]), variant, shop.config.users, out)
    sizes = {"n_queries": config.n_queries, "n_candidates": config.n_candidates}
    examples = []
    snapshots = take_snapshots(shop.behaviour, shop.embeddings, items)
    for number, snapshot in enumerate(islice(snapshots, len(cuts_us) - 1)):
        table = torch.from_numpy(variant.table(shop.known_at(cuts_us[number])))
        window = replace(snapshot, table=replace(snapshot.table, embeddings=table))
        if number < len(cuts_us) - 2:
            examples.append(sample_examples(window, encoder, seed=SEED, **sizes))
    trees = {TREES: fit_trees(examples, config, seed=SEED)}
    results = measure_rankers(window, encoder, trees, seed=SEED)
    return {scope: values[TREES][~np.isnan(values[TREES])] for scope, values in results.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the sets, print the differences to the first variant, and record the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", choices=[*SETS, []], help="sets to measure; all if none")
    parser.add_argument("--no-record", action="store_true", help="only print")
    parser.add_argument("--ranker", action="store_true", help="measure the trees in place of it")
    options = parser.parse_args(arguments)
    for name in options.sets or SETS:
        runtime = Runtime(Workspace(OUT / name / STAGES, announce=print), "cpu")
        shop = read_shop_of(configured(name), runtime)
        recorded, again = not options.no_record, f"{COMMAND} {name}"
        if options.ranker:
            _compare_rankers(name, shop, count_events(shop.behaviour, runtime), recorded=recorded)
            continue
        window, first = window_of(shop), None
        for label, variant in VARIANTS.items():
            found = measure(window, variant, shop.config.users, OUT / name / "encoders" / label)
            first = first or found
            _show(name, label, found, first)
            if recorded:
                _record(f"users.{name}.{label}", found, again)


def _compare_rankers(name: str, shop: Shop, items: KnownItems, *, recorded: bool) -> None:
    """Print and record NDCG@10 of trees that read the content, and that read the smoothed table."""
    first: Mapping[str, Doubles] = {}
    for label in ("regression", "regression_smoothed"):
        found = rank(shop, VARIANTS[label], items, OUT / name / "encoders" / f"first-{label}")
        first = first or found
        for scope, values in found.items():
            mean, more = float(values.mean()), difference(values, first[scope])
            print(name, label, "trees", scope, len(values), f"{mean:.4f}", more, sep="; ")
            if recorded:
                key, again = f"users.{name}.{label}.trees.{scope}.ndcg@10", f"{COMMAND} {name}"
                record("users", key, round(mean, 4), "ndcg@10", f"{again} --ranker")


def _show(name: str, label: str, found: Measured, first: Measured) -> None:
    for scope, result in found.results.items():
        figures = [
            f"{metric} {result.estimates[metric].mean:.4f}, "
            f"more by {compare(result, first.results[scope], metric)}"
            for metric in METRICS
        ]
        print(name, label, scope, len(result.user_rows), *figures, sep="; ", flush=True)
    print(name, label, f"{found.seconds:.0f} s", sep="; ", flush=True)


def _record(key: str, found: Measured, again: str) -> None:
    for scope, result in found.results.items():
        for metric in METRICS:
            value = round(result.estimates[metric].mean, 4)
            record("users", f"{key}.{scope}.{metric}", value, metric, again)
    record("users", f"{key}.seconds", round(found.seconds), "s", again)


if __name__ == "__main__":
    main()
