"""Train every ranker on past windows, choose one on the last, and train the chosen on all."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from recsys.catalogue.store import Catalogue
from recsys.config import RankerConfig
from recsys.data.arrays import Floats
from recsys.models.user_encoder import UserEncoder
from recsys.ranking.calibration import UNCALIBRATED
from recsys.ranking.features import FEATURES
from recsys.ranking.item_table import build_item_table
from recsys.ranking.rankers import BLEND, NETWORK, TREES, Blend, Ranker, SimpleRanker, blend
from recsys.ranking.scoring import UserRanker
from recsys.ranking.stored import describe_rankers, load_user_ranker, save_user_ranker
from recsys.training.calibration import METHOD, calibrate, rescale
from recsys.training.cuts import FOREVER_US, on_offer
from recsys.training.inputs import Behaviour
from recsys.training.known import KnownItems
from recsys.training.ranking import (
    LEAST_STEPS,
    RankingExamples,
    Snapshot,
    answers_between,
    any_answers,
    fit_trees,
    sample_examples,
    train_ranker,
)
from recsys.training.selection import (
    SCOPES,
    Choice,
    Results,
    Scope,
    choose_ranker,
    measure_rankers,
    read_choice,
)
from recsys.training.stages import CHECKPOINTS, Runtime
from recsys.training.users import UserEncoders
from vision.training.run import TrainingRun

RANKERS, CHOICE = "rankers.json", "choice.json"  # in the folder of the stage
HELD_OUT, SERVED = "held_out", "served"  # its folders
SPREAD_CANDIDATES = 100_000  # by which the spread of scores is measured


class FittedRanking(NamedTuple):
    """What ranks items for a user.

    Args:
        choice: Which rankers were chosen, and by what.
        held_out: What learned from the events before the split, for offline evaluation.
        served: What learned from all events; None for an ablation, which is only evaluated.
    """

    choice: Choice
    held_out: UserRanker
    served: UserRanker | None


class Compared(NamedTuple):
    """The comparison by which a ranker is chosen.

    Args:
        examples: Queries of each window before the split, earliest first.
        results: NDCG@10 of every ranker in the last of these windows.
        choice: The ranker of each scope, chosen by these results.
        epochs: Number of epochs after which the network was best.
        window: The last of these windows.
        rankers: The chosen ranker of each scope, trained on the windows before it.
    """

    examples: Sequence[RankingExamples]
    results: Results
    choice: Choice
    epochs: int
    window: Snapshot
    rankers: Mapping[Scope, Ranker]


class _Inputs(NamedTuple):
    """What the rankers learn from; see :func:`fit_ranking`."""

    behaviour: Behaviour
    embeddings: Floats
    encoders: UserEncoders
    items: KnownItems


def fit_ranking(
    behaviour: Behaviour,
    embeddings: Floats,
    encoders: UserEncoders,
    items: KnownItems,
    config: RankerConfig,
    runtime: Runtime,
    *,
    suffix: str = "",
) -> FittedRanking:
    """Return what the stage "ranker" chose.

    Args:
        behaviour: Events, and the moments at which they are cut.
        embeddings: Item embeddings (N, D).
        encoders: User encoders.
        items: What the events said of the items.
        config: Sizes and schedules.
        runtime: How to run the stage.
        suffix: Ending of the stage's name, for ablations.
    """
    inputs = _Inputs(behaviour, embeddings, encoders, items)
    stage = runtime.workspace.run(
        f"ranker{suffix}",
        {
            "users": encoders.key,
            "items": items.key,
            "config": config.model_dump(),
            "features": FEATURES,
            "steps": LEAST_STEPS,
            "probability": METHOD,
        },
        lambda folder: _fit(inputs, config, folder, runtime),
    )
    choice = read_choice(json.loads((stage.folder / CHOICE).read_text()))
    described = json.loads((stage.folder / RANKERS).read_text())

    def load(name: str, encoder: UserEncoder) -> UserRanker:
        return load_user_ranker(encoder, described[name], stage.folder / name)

    held_out = load(HELD_OUT, encoders.held_out)
    served = None if encoders.served is None else load(SERVED, encoders.served)
    return FittedRanking(choice, held_out, served)


def _fit(inputs: _Inputs, config: RankerConfig, folder: Path, runtime: Runtime) -> None:
    """Write the rankers and the choice into the folder of the stage.

    The chosen rankers are trained once more on all windows before the split, and, if they are to be
    served, on these and the window after it.
    """
    encoder = inputs.encoders.first.to(runtime.device)
    windows = take_snapshots(*inputs[:2], inputs.items, device=runtime.device)
    n_windows = len(inputs.behaviour.cuts_us) - 1
    compared = compare_rankers(windows, n_windows, encoder, config, folder, runtime)
    examples, choice, epochs = compared.examples, compared.choice, compared.epochs
    served, seed = inputs.encoders.served is not None, runtime.seed
    calibrations = UNCALIBRATED  # an ablation is only ranked by
    if served:
        calibrations = calibrate(
            compared.window, encoder, compared.rankers, examples[-1], seed=seed
        )
    del compared  # the tables of two windows may not fit into memory together
    known_to = {HELD_OUT: examples}
    if served:
        window = next(windows)
        later = [_examples(window, encoder, config, seed)] if any_answers(window) else []
        known_to[SERVED] = [*examples, *later]
    encoder.to("cpu")
    described = {}
    for name, known in known_to.items():
        run = replace(runtime.training_run(folder, "cpu"), workdir=folder / CHECKPOINTS / name)
        rankers = _fit_chosen(choice, known, config, run, epochs=epochs)
        probable = rescale(calibrations, dict(zip(SCOPES, rankers, strict=True)), examples[-1])
        fitted = UserRanker(getattr(inputs.encoders, name), *rankers, probable)
        (folder / name).mkdir(exist_ok=True)
        save_user_ranker(fitted, folder / name)
        described[name] = describe_rankers(fitted)
    (folder / RANKERS).write_text(json.dumps(described, indent=1))
    (folder / CHOICE).write_text(json.dumps(choice.to_json(), indent=1))


def compare_rankers(
    windows: Iterator[Snapshot],
    n_windows: int,
    encoder: UserEncoder,
    config: RankerConfig,
    folder: Path,
    runtime: Runtime,
) -> Compared:
    """Return how rankers that learned from all windows but the last do on the last.

    Args:
        windows: Snapshots, earliest first; those after the compared ones are not taken.
        n_windows: Number of windows before the split.
        encoder: User encoder that was trained on events before the first window.
        config: Sizes and schedules.
        folder: Folder of the stage; checkpoints are kept in it.
        runtime: How to run the stage.
    """
    examples = []
    for window in Tqdm(
        islice(windows, n_windows),
        desc="snapshots",
        total=n_windows,
        disable=not runtime.progress,
    ):  # in a large catalogue the table of one window takes much memory
        examples.append(_examples(window, encoder, config, runtime.seed))
    trained, epochs = _train(examples, config, folder, runtime)
    results = measure_rankers(window, encoder, trained, seed=runtime.seed)
    choice = choose_ranker(results, config)
    chosen = {scope: _named(getattr(choice, scope), trained) for scope in SCOPES}
    return Compared(examples, results, choice, epochs, window, chosen)


def _train(
    examples: Sequence[RankingExamples], config: RankerConfig, folder: Path, runtime: Runtime
) -> tuple[dict[str, Ranker], int]:
    """Return the rankers that learned from all windows but the last, simplest first.

    The second value is the number of epochs after which the network was best.
    """
    trained: dict[str, Ranker] = {}
    epochs = config.epochs
    if config.kind in ("auto", NETWORK):
        run = runtime.training_run(folder, "cpu")
        trained[NETWORK], epochs = train_ranker(examples[:-1], examples[-1], config, run)
    if config.kind in ("auto", TREES):
        trained[TREES] = fit_trees(examples[:-1], config, seed=runtime.seed)
    if config.kind == "auto":
        trained[BLEND] = _blend(trained, examples[-1])
    return trained, epochs


def _fit_chosen(
    choice: Choice,
    examples: Sequence[RankingExamples],
    config: RankerConfig,
    run: TrainingRun,
    *,
    epochs: int,
) -> tuple[Ranker, Ranker]:
    """Return the chosen rankers of both scopes, trained on all examples."""
    chosen, fitted = {choice.all, choice.new}, dict[str, Ranker]()
    if chosen & {NETWORK, BLEND}:
        fitted[NETWORK], _ = train_ranker(examples, None, config, run, epochs=epochs)
    if chosen & {TREES, BLEND}:
        fitted[TREES] = fit_trees(examples, config, seed=run.seed)
    if BLEND in chosen:
        fitted[BLEND] = _blend(fitted, examples[-1])
    return _named(choice.all, fitted), _named(choice.new, fitted)


def _named(name: str, trained: Mapping[str, Ranker]) -> Ranker:
    return trained.get(name) or SimpleRanker(name)


def _blend(trained: Mapping[str, Ranker], examples: RankingExamples) -> Blend:
    candidates = examples.features[examples.relevance >= 0][:SPREAD_CANDIDATES]
    with torch.inference_mode():
        return blend([trained[NETWORK], trained[TREES]], candidates)


def take_snapshots(
    behaviour: Behaviour, embeddings: Floats, items: KnownItems, *, device: str = "cpu"
) -> Iterator[Snapshot]:
    """Yield for each cut what was known then, and what was bought from then until the next.

    The last one is that of the split, with what was bought from then on. Where a fold of users is
    held out, these users bought it, and what was known of the items is from the others.

    Args:
        behaviour: Events, and the moments at which they are cut.
        embeddings: Item embeddings (N, D).
        items: What the events said of the items at the cuts and the split.
        device: Where the tables of items live.
    """
    interactions = behaviour.interactions
    catalogue = Catalogue(behaviour.items, embeddings, device=device)
    targets = interactions.of_kinds(behaviour.target_kinds)
    target_kinds = torch.tensor(
        [name in behaviour.target_kinds for name in interactions.kind_names]
    )
    histories = interactions.histories()
    cuts = behaviour.cuts_us
    starts, ends = (*cuts[:-1], behaviour.asked_from_us), (*cuts[1:], FOREVER_US)
    for number, (cut, start, end) in enumerate(zip(cuts, starts, ends, strict=True)):
        yield Snapshot(
            table=build_item_table(catalogue, items.at(number), target_kinds),
            histories=histories,
            moments_us=np.broadcast_to(np.asarray(start), (interactions.n_users,)),
            answers=answers_between(targets, start, end),
            candidates=np.flatnonzero(on_offer(behaviour.items, interactions, cut)),
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
