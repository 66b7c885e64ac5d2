"""Refresh a bundle with newer events, and let the new one serve unless it is found worse."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.bundle import Bundle
from recsys.bundle.finding import LATEST, point_to
from recsys.config import TrainConfig
from recsys.data.arrays import Ints
from recsys.data.files import make_folder, whole_file
from recsys.data.frames import Frame
from recsys.data.interactions import History, Interactions
from recsys.data.splits import split_by_time
from recsys.data.tables import Source
from recsys.data.timestamps import from_us
from recsys.errors import InvalidArgumentError
from recsys.evaluation.bootstrap import Estimate
from recsys.evaluation.protocol import SystemResult, compare, evaluate
from recsys.evaluation.queries import Queries, build_queries
from recsys.evaluation.significance import ALPHA, detectable_differences, paired_p_values
from recsys.evaluation.systems import list_maker
from recsys.recommender import Recommender
from recsys.renewal import AddedEvents, add_events, read_behaviour, read_settings, renew
from recsys.training.cuts import on_offer
from recsys.training.inputs import Behaviour
from recsys.training.tower_errors import translate_tower_errors

METRIC, K = "ndcg@10", 10
RECORD = "refresh.json"  # beside the bundles


class Comparison(NamedTuple):
    """A new bundle beside the old one, on the events after the new split.

    Args:
        split_us: Moment of the split, microseconds UTC.
        n_users: Number of users who were ranked for.
        new: Mean NDCG@10 of the new bundle.
        old: Mean NDCG@10 of the old one.
        difference: Mean of new minus old, with its bootstrap interval.
        p: Two-sided p-value of the difference, by a permutation test.
        detectable: Smallest true difference that so many users show in 80 % of cases.
        old_rankers: Which rankers of the old bundle answered: those that are served, if they have
            learned from nothing after the split, else the held-out ones.
    """

    split_us: int
    n_users: int
    new: float
    old: float
    difference: Estimate
    p: float
    detectable: float
    old_rankers: Literal["served", "held_out"]

    @property
    def is_worse(self) -> bool:
        """Whether the new bundle is worse by more than chance explains."""
        return self.difference.mean < 0 and self.p < ALPHA


@dataclass(frozen=True)
class Refreshed:
    """A finished refresh.

    Args:
        bundle: Folder of the new bundle.
        promoted: Whether it is now the latest.
        sentence: What was compared, and what was decided.
        old: Version of the old bundle.
        comparison: Figures of the comparison.
        events: Events that it learned from, and those that were left out.
    """

    bundle: Path
    promoted: bool
    sentence: str
    old: str
    comparison: Comparison
    events: AddedEvents

    @property
    def record(self) -> dict[str, Any]:
        """The decision and its figures as JSON values."""
        figures = self.comparison._asdict()
        return {
            "bundle": self.bundle.name,
            "old": self.old,
            "promoted": self.promoted,
            "is_worse": self.comparison.is_worse,
            "sentence": self.sentence,
            "comparison": {**figures, "difference": self.comparison.difference._asdict()},
            "events": {
                "added": self.events.n_added,
                "repeated": self.events.n_repeated,
                "unknown_items": self.events.n_unknown,
                "left_out": self.events.quarantine.counts()["events"],
            },
        }


@translate_tower_errors()
def refresh(
    bundle: Bundle | str | Path,
    events: Source | Frame,
    out: str | Path | None = None,
    *,
    config: TrainConfig | None = None,
    force: bool = False,
    progress: bool = False,
    announce: Callable[[str], None] = lambda stage: None,
) -> Refreshed:
    """Train users and rankers again with newer events; the new bundle is sealed under ``out``.

    Towers, fusion, item embeddings, relations, rules and identification stay as they are. The new
    bundle becomes the latest unless it ranks worse than the old one, by a paired test. The decision
    is also written to ``refresh.json`` under ``out``.

    >>> refresh("runs/shop", "events-of-today.parquet").promoted

    Args:
        bundle: The old bundle, or its folder, or a folder of bundles, of which the latest is taken.
        events: Newer events: files or a DataFrame. Those that the bundle has count once, and those
            of items that it lacks are left out.
        out: Folder of the new bundle; None is the folder that the old one lies in.
        config: Settings, of which ``seed``, ``device``, ``[split]``, ``[users]`` and ``[ranker]``
            count; None takes those that the bundle was trained by.
        force: Whether the new bundle becomes the latest even if it is worse.
        progress: Whether to show progress bars.
        announce: Called with the name of each stage before it runs.

    Raises:
        MissingPartError: If the bundle was trained without events.
        BundleError: If the bundle is damaged, or its rankers are of another release.
        ConfigError: If the bundle keeps no settings and none are passed.
        DataError: If the events cannot be used, none is later than those of the bundle, or nobody
            can be ranked for after the split.
        InvalidArgumentError: If ``out`` has no latest bundle that could stay.
    """
    old = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
    out = old.path.parent if out is None else Path(out)
    _prepare(out, old)
    settings = read_settings(old) if config is None else config
    added = add_events(old, events)
    behaviour = read_behaviour(old, added.table, settings)
    queries = later_queries(behaviour)
    path = renew(old, added.table, behaviour, settings, out, progress=progress, announce=announce)
    announce("compare")
    comparison = compare_bundles(Bundle(path), old, behaviour.interactions, queries)
    promoted = force or not comparison.is_worse
    if promoted:
        point_to(path)
    elif not os.path.lexists(out / LATEST):
        point_to(old.path)
    sentence = _sentence(path.name, old.version, comparison, promoted=promoted)
    refreshed = Refreshed(path, promoted, sentence, old.version, comparison, added)
    with whole_file(out / RECORD) as scratch:
        scratch.write_text(json.dumps(refreshed.record, indent=1))
    return refreshed


def _prepare(out: Path, old: Bundle) -> None:
    """Make the folder of the new bundle.

    Raises:
        InvalidArgumentError: If nothing in it could stay the latest; the new bundle, the only one
            there, would be taken for it.
    """
    if not os.path.lexists(out / LATEST) and out.resolve() != old.path.parent:
        raise InvalidArgumentError(
            f"out must have a latest bundle, which stays if the new one is worse, got none in "
            f"{out}; pass {old.path.parent}, the folder of the old bundle"
        )
    make_folder(out)


def later_queries(behaviour: Behaviour) -> Queries:
    """Return the queries from the events after the split, over the whole catalogue.

    Raises:
        DataError: If no user has events before the split and a right answer after it.
    """
    split_us = behaviour.cuts_us[-1]
    split = split_by_time(behaviour.interactions, split_us)
    return build_queries(
        split.train,
        split.test,
        now_us=split_us,
        scope="all",
        target_kinds=behaviour.target_kinds,
        candidates=on_offer(behaviour.items, split.train, split_us),
    )


def compare_bundles(
    new: Bundle, old: Bundle, interactions: Interactions, queries: Queries
) -> Comparison:
    """Return the figures of two bundles on the same queries.

    Both read the users' events up to the split, as a service does, which gets them live. The old
    bundle answers as it did then: with its statistics, or those of the split if it has later ones.

    Args:
        new: A bundle whose held-out rankers learned before the split of the queries.
        old: A bundle with the same items, whose held-out rankers did so, too.
        interactions: All events, in the rows of the queries.
        queries: What both are asked.
    """
    split_us = queries.now_us
    assert isinstance(split_us, int), "read_behaviour checks it"
    assert old.as_of_us is not None, "a bundle with a ranking part has statistics"
    past = interactions.before(split_us)
    is_past = old.as_of_us <= split_us
    ours = _answer(Recommender(new, as_of=split_us), past, queries)
    theirs = _answer(Recommender(old, as_of=None if is_past else split_us), past, queries)
    scores, old_scores = ours.per_user[METRIC], theirs.per_user[METRIC]
    differences = (scores - old_scores)[:, None]
    return Comparison(
        split_us=split_us,
        n_users=len(queries),
        new=float(scores.mean()),
        old=float(old_scores.mean()),
        difference=compare(ours, theirs, METRIC),
        p=float(paired_p_values(differences)[0]),
        detectable=float(detectable_differences(differences)[0]),
        old_rankers="served" if is_past else "held_out",
    )


def _answer(recommender: Recommender, past: Interactions, queries: Queries) -> SystemResult:
    """Return how a bundle ranks for the queries, with the histories of ``past``."""
    histories = _in_kinds(past, recommender.kind_names)
    moments = np.full(len(histories), queries.now_us, dtype=np.int64)

    def scores(user_rows: Ints) -> NDArray[np.float32]:
        asked = [histories[row] for row in user_rows.tolist()]
        return recommender.scores(asked, now=moments[user_rows], mask=queries.candidates)

    lists = list_maker(recommender, moments)
    return evaluate(recommender.version, scores, queries, ks=(K,), make_list=lists)


def _in_kinds(past: Interactions, known: Sequence[str]) -> list[History]:
    """Return all histories in the kinds that a bundle knows; it drops other events, as live."""
    codes = np.array([[*known].index(one) if one in known else -1 for one in past.kind_names])
    found = []
    for history in past.histories():
        kinds = codes[history.kinds]
        kept = kinds >= 0
        found.append(History(history.item_rows[kept], kinds[kept], history.timestamps_us[kept]))
    return found


def _sentence(new: str, old: str, comparison: Comparison, *, promoted: bool) -> str:
    """Return what was compared and decided, for people."""
    mean, low, high = (f"{number:+.3f}" for number in comparison.difference)
    start = from_us(comparison.split_us)
    rankers = "served" if comparison.old_rankers == "served" else "held-out"
    found = "worse" if comparison.is_worse else "not found worse"
    end = f"{new} is the latest" if promoted else f"{old} stays, and {new} is not the latest"
    but = ", but promotion was forced" if comparison.is_worse and promoted else ""
    return (
        f"NDCG@10 of {comparison.n_users:,} users from {start:%Y-%m-%d %H:%M} UTC on: "
        f"{comparison.new:.3f} by the new bundle, {comparison.old:.3f} by the {rankers} rankers of "
        f"the old, {mean} [{low}, {high}], p = {comparison.p:.4f}; {found}{but}: {end}"
    )
