"""Time how the rankers' examples are built, and how the network and the trees learn from them.

Run from the repository's root: ``python -m benchmarks.ranking_train``. The shop has 4,000 items
(``benchmarks.sized_shops``), and 1,000 users are asked at its split. Network and trees have the
default sizes and schedules. An example is one candidate of one user. Seconds are
those of the processor.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.record import record
from benchmarks.sized_shops import bundle_of
from recsys import Bundle
from recsys.catalogue.store import Catalogue
from recsys.config import RankerConfig
from recsys.ranking.item_table import build_item_table
from recsys.training.ranking import (
    Snapshot,
    answers_between,
    fit_trees,
    sample_examples,
    train_ranker,
)
from vision.training.run import TrainingRun

COMMAND = "python -m benchmarks.ranking_train"
N_ITEMS, N_QUERIES, N_CANDIDATES = 4_000, 1_000, 400
FOREVER_US = 2**62


def snapshot_of(bundle: Bundle) -> Snapshot:
    """Return what the bundle knows of its items, and what users took after the split."""
    interactions, split_us = bundle.interactions, bundle.split_us
    assert isinstance(split_us, int), "the shop is split by time"
    _, statistics, _ = bundle.known_at(split_us)
    catalogue = Catalogue(bundle.items, bundle.item_embeddings)
    kinds = torch.ones(len(interactions.kind_names), dtype=torch.bool)
    return Snapshot(
        table=build_item_table(catalogue, statistics, kinds),
        histories=interactions.histories(),
        moments_us=np.full(interactions.n_users, split_us),
        answers=answers_between(interactions, split_us, FOREVER_US),
        candidates=np.arange(len(catalogue)),
    )


def measure(snapshot: Snapshot, bundle: Bundle) -> tuple[int, float, float, float]:
    """Return the number of examples, and the seconds of building, network and trees."""
    config, encoder = RankerConfig(), bundle.held_out.encoder
    moments = [time.process_time()]
    examples = sample_examples(
        snapshot, encoder, n_queries=N_QUERIES, n_candidates=N_CANDIDATES, seed=0
    )
    moments.append(time.process_time())
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingRun(Path(folder), 0, torch.device("cpu"), False)
        train_ranker([examples], examples, config, run)
    moments.append(time.process_time())
    fit_trees([examples], config, seed=0)
    moments.append(time.process_time())
    building, network, trees = np.diff(moments).tolist()
    return examples.relevance.numel(), building, network, trees


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and record."""
    argparse.ArgumentParser(description=__doc__).parse_args(arguments)
    bundle = bundle_of(N_ITEMS)
    n_examples, building, network, trees = measure(snapshot_of(bundle), bundle)
    whole = building + network + trees
    print(f"building {building:.1f} s, network {network:.1f} s, trees {trees:.1f} s")
    figures = {
        "examples_per_s": (n_examples / whole, "examples/s"),
        "building.examples_per_s": (n_examples / building, "examples/s"),
        "share_outside_model": (building / whole, "share"),
    }
    for name, (value, unit) in figures.items():
        print(f"{name}: {value:.3g} {unit}")
        record("ranking_train", f"ranking_train.{name}", round(value, 4), unit, COMMAND)


if __name__ == "__main__":
    main()
