"""Train every ranker on past windows, choose one on the last, and train the chosen on all."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from recsys.catalogue.store import Catalogue
from recsys.config import RankerConfig
from recsys.data.arrays import Floats
from recsys.models.user_encoder import UserEncoder
from recsys.ranking.features import FEATURES
from recsys.ranking.item_table import build_item_table
from recsys.ranking.rankers import BLEND, NETWORK, TREES, Blend, Ranker, SimpleRanker, blend
from recsys.ranking.statistics import build_statistics
from recsys.ranking.stored import describe_rankers, load_rankers, save_ranker
from recsys.training.cuts import on_offer, window_days
from recsys.training.inputs import ShopData
from recsys.training.ranking import (
    RankingExamples,
    Snapshot,
    answers_between,
    fit_trees,
    sample_examples,
    train_ranker,
)
from recsys.training.selection import Choice, choose_ranker, read_choice
from recsys.training.stages import Runtime, Trained

RANKERS, CHOICE = "rankers.json", "choice.json"  # in the folder of the stage
SPREAD_CANDIDATES = 100_000  # by which the spread of scores is measured


class FittedRanking(NamedTuple):
    """What ranks items for a user.

    Args:
        user_encoder: Network from a history to a user vector.
        choice: Which ranker was chosen, and by what.
        ranker: Ranker of the whole catalogue.
        discovery: Ranker where the user's own items are left out.
    """

    user_encoder: UserEncoder
    choice: Choice
    ranker: Ranker
    discovery: Ranker


def fit_ranking(
    shop: ShopData,
    embeddings: Floats,
    users: Trained[UserEncoder],
    config: RankerConfig,
    runtime: Runtime,
    *,
    suffix: str = "",
) -> FittedRanking:
    """Return what the stage "ranker" chose.

    Args:
        shop: Tables with events.
        embeddings: Item embeddings (N, D).
        users: User encoder.
        config: Sizes and schedules.
        runtime: How to run the stage.
        suffix: Ending of the stage's name, for ablations.
    """
    stage = runtime.workspace.run(
        f"ranker{suffix}",
        {"users": users.key, "config": config.model_dump(), "features": FEATURES},
        lambda folder: _fit(shop, embeddings, users.network, config, folder, runtime),
    )
    choice = read_choice(json.loads((stage.folder / CHOICE).read_text()))
    described = json.loads((stage.folder / RANKERS).read_text())
    return FittedRanking(users.network, choice, *load_rankers(described, stage.folder))


def _fit(
    shop: ShopData,
    embeddings: Floats,
    encoder: UserEncoder,
    config: RankerConfig,
    folder: Path,
    runtime: Runtime,
) -> None:
    """Write the chosen rankers and the choice into the folder of the stage."""
    encoder.to(runtime.device)
    windows = take_snapshots(shop, embeddings, device=runtime.device)
    n_windows = len(shop.cuts_us) - 1
    examples = []
    for window in Tqdm(
        windows, desc="snapshots", total=n_windows, disable=not runtime.progress
    ):  # in a large catalogue the table of one window takes much memory
        examples.append(_examples(window, encoder, config, runtime.seed))
    trained = _train(examples, config, folder, runtime)
    choice = choose_ranker(window, encoder, trained, config, seed=runtime.seed)
    encoder.to("cpu")
    if {TREES, BLEND} & {*choice[:2]}:
        trained[TREES] = fit_trees(examples, config, seed=runtime.seed)
        if BLEND in trained:
            trained[BLEND] = _blend(trained, examples[-1])
    ranker, discovery = (trained.get(name) or SimpleRanker(name) for name in choice[:2])
    for one in (ranker, discovery):
        save_ranker(one, folder)
    (folder / RANKERS).write_text(json.dumps(describe_rankers(ranker, discovery), indent=1))
    (folder / CHOICE).write_text(json.dumps(choice.to_json(), indent=1))


def _train(
    examples: list[RankingExamples], config: RankerConfig, folder: Path, runtime: Runtime
) -> dict[str, Ranker]:
    """Return the rankers that learned from all windows but the last, simplest first."""
    trained: dict[str, Ranker] = {}
    if config.kind in ("auto", NETWORK):
        run = runtime.training_run(folder, "cpu")
        trained[NETWORK] = train_ranker(examples[:-1], examples[-1], config, run)
    if config.kind in ("auto", TREES):
        trained[TREES] = fit_trees(examples[:-1], config, seed=runtime.seed)
    if config.kind == "auto":
        trained[BLEND] = _blend(trained, examples[-1])
    return trained


def _blend(trained: dict[str, Ranker], examples: RankingExamples) -> Blend:
    candidates = examples.features[examples.relevance >= 0][:SPREAD_CANDIDATES]
    with torch.inference_mode():
        return blend([trained[NETWORK], trained[TREES]], candidates)


def take_snapshots(
    shop: ShopData, embeddings: Floats, *, device: str = "cpu"
) -> Iterator[Snapshot]:
    """Yield for each cut what was known then, and what was bought from then until the next.

    Args:
        shop: Tables with events.
        embeddings: Item embeddings (N, D).
        device: Where the tables of items live.
    """
    interactions = shop.interactions
    assert interactions is not None, "callers check for events"
    catalogue = Catalogue(shop.dataset.items, embeddings, device=device)
    targets = interactions.of_kinds(shop.target_kinds)
    target_kinds = torch.tensor([name in shop.target_kinds for name in interactions.kind_names])
    histories = interactions.histories()
    for cut, following in pairwise(shop.cuts_us):
        statistics = build_statistics(
            interactions,
            cut,
            target_kinds=shop.target_kinds,
            window_days=window_days(interactions, shop.cuts_us),
        )
        yield Snapshot(
            table=build_item_table(catalogue, statistics, target_kinds),
            histories=histories,
            moments_us=np.broadcast_to(np.asarray(cut), (interactions.n_users,)),
            answers=answers_between(targets, cut, following),
            candidates=np.flatnonzero(on_offer(shop.dataset.items, interactions, cut)),
        )


def _examples(
    snapshot: Snapshot, encoder: UserEncoder, config: RankerConfig, seed: int
) -> RankingExamples:
    return sample_examples(
        snapshot,
        encoder,
        n_queries=config.n_queries,
        n_candidates=config.n_candidates,
        seed=seed,
    )
