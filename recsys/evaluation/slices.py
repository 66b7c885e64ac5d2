"""Groups of users by which quality is looked at: it may be good on average and bad for some."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.data.arrays import Doubles, Ints
from recsys.data.interactions import Interactions
from recsys.evaluation.exposure import popularity_percentiles
from recsys.evaluation.facts import ItemFacts, thirds
from recsys.evaluation.queries import Queries

# One label for each user of the queries (U,), by what the users are grouped by.
UserLabels = Mapping[str, Sequence[str]]
NO_LABELS: UserLabels = {}


def label_users(
    queries: Queries, before: Interactions, taken: Interactions, facts: ItemFacts
) -> UserLabels:
    """Return the labels of the users, by "activity" and by what their answers are like.

    - ``activity``: low, middle and high thirds by the number of events before the split.
    - ``answers taken before``: none, some or all of the user's answers.
    - ``answers nobody had taken``: whether one of the answers had not been taken by anybody.
    - ``popularity of the answers``: low, middle and high thirds by the mean percentile.

    A grouping with one label is left out.

    Args:
        queries: Queries of one scope.
        before: Events before the split.
        taken: Those of the target kinds.
        facts: Facts about the items.
    """
    owners, answers = flat_answers(queries)
    events = np.bincount(before.user_rows, minlength=before.n_users)[queries.user_rows]
    pairs = queries.user_rows[owners] * taken.n_items + answers
    again = np.isin(pairs, taken.user_rows * taken.n_items + taken.item_rows)
    repeats = np.bincount(owners, weights=again) / np.bincount(owners)
    cold = means_by_user(queries, facts.buyers == 0) > 0
    percentiles = popularity_percentiles(facts.buyers, queries.candidates)
    labels = {
        "activity": thirds(events.astype(np.float64)),
        "answers taken before": [
            "none" if share == 0 else "all" if share == 1 else "some" for share in repeats
        ],
        "answers nobody had taken": ["yes" if one else "no" for one in cold],
        "popularity of the answers": thirds(means_by_user(queries, percentiles)),
    }
    return {name: values for name, values in labels.items() if len(set(values)) > 1}


def flat_answers(queries: Queries) -> tuple[Ints, Ints]:
    """Return all answers as item rows, and the position of the user that each belongs to."""
    counts = [len(rows) for rows in queries.relevant]
    return np.repeat(np.arange(len(queries)), counts), np.concatenate(queries.relevant)


def means_by_user(queries: Queries, values: NDArray[np.generic]) -> Doubles:
    """Return the mean over each user's answers (U,) of one value per item (N,)."""
    owners, answers = flat_answers(queries)
    sums = np.bincount(owners, weights=values[answers].astype(np.float64))
    return sums / np.bincount(owners)
