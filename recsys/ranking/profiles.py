"""What the histories of several users say of every item, before any candidate is chosen."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recsys.data.arrays import Ints
from recsys.data.interactions import History
from recsys.ranking.arithmetic import exp2, products
from recsys.ranking.baselines.factors import fold_in
from recsys.ranking.item_table import ItemTable
from recsys.ranking.user_events import UserEvents, collect_events

# Half-lives of a user's events, in pauses between visits. They count from the user's latest event,
# so that no history fades to nothing while its user is away.
HALF_LIVES = {"short": 1 / 3, "middle": 4 / 3, "long": 4.0}


class OwnItems(NamedTuple):
    """The distinct items of B users' past events (R,), user after user, rows ascending.

    Args:
        users: Position of the item's user in the batch, int64 (R,).
        rows: Item rows, int64 (R,).
        lags_days: Time from the last event on the item to the user's latest event (R,).
        last: Whether the user's latest visit has the item, bool (R,).
    """

    users: Tensor
    rows: Tensor
    lags_days: Tensor
    last: Tensor


class UserProfiles(NamedTuple):
    """The past events of B users, and the scores of every item by what goes with their items.

    Args:
        now_us: Moment of each request, microseconds UTC, int64 (B,).
        events: Events before it.
        own: Distinct items of those events.
        vectors: Output of the user encoder (B, D).
        seen: Which items each whole history has, bool (B, N).
        scores: Scores of all items (B, N) by name: of the simple recommenders, and of each kind of
            relation that the shop has.
    """

    now_us: Tensor
    events: UserEvents
    own: OwnItems
    vectors: Tensor
    seen: Tensor
    scores: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.events.counts)

    def of(self, user: int) -> "UserProfiles":
        """Return the profile of one user alone."""
        some = slice(user, user + 1)
        own = self.own.users == user
        return UserProfiles(
            now_us=self.now_us[some],
            events=self.events.of(user),
            own=OwnItems(self.own.users[own] - user, *(part[own] for part in self.own[1:])),
            vectors=self.vectors[some],
            seen=self.seen[some],
            scores={name: scores[some] for name, scores in self.scores.items()},
        )


def read_profiles(
    histories: Sequence[History], now_us: Ints, table: ItemTable, user_vectors: Tensor
) -> UserProfiles:
    """Return the profiles of some users.

    Args:
        histories: Events of each user (B entries); those at or after ``now_us`` count for ``seen``
            alone.
        now_us: Moment of each request, microseconds UTC (B,).
        table: Values of every item.
        user_vectors: Output of the user encoder for the histories (B, D).
    """
    device = table.embeddings.device
    events = collect_events(histories, now_us, device)
    moments = torch.from_numpy(now_us).to(device)
    seen = _seen_items(histories, len(table)).to(device)
    own = _own_items(events, len(table))
    scores = _scores(own, len(histories), table)
    return UserProfiles(moments, events, own, user_vectors, seen, scores)


def _seen_items(histories: Sequence[History], n_items: int) -> Tensor:
    """Return which items each history has, bool (B, N); events too old to be read count, too."""
    seen = torch.zeros(len(histories), n_items, dtype=torch.bool)
    users = np.repeat(np.arange(len(histories)), [len(one.item_rows) for one in histories])
    rows = np.concatenate([one.item_rows for one in histories])
    seen[torch.from_numpy(users), torch.from_numpy(rows)] = True
    return seen


def fading(days: Tensor, table: ItemTable, half_life: str) -> Tensor:
    """Return weights that are 1 at 0 days and halve every half-life; see ``HALF_LIVES``."""
    return exp2(-days / (HALF_LIVES[half_life] * table.tempo.pause_days))


def _own_items(events: UserEvents, n_items: int) -> OwnItems:
    codes, inverse = torch.unique(events.users * n_items + events.rows, return_inverse=True)
    lags = torch.full(codes.shape, torch.inf, device=codes.device)
    lags.scatter_reduce_(0, inverse, events.lags_days, reduce="amin")
    visits = torch.full_like(codes, torch.iinfo(torch.int64).max)
    visits.scatter_reduce_(0, inverse, events.visits, reduce="amin")
    return OwnItems(codes // n_items, codes % n_items, lags, visits == 0)


def _scores(own: OwnItems, n_users: int, table: ItemTable) -> dict[str, Tensor]:
    """Return what the user's items say of all items (B, N); each item of a user counts once."""
    shape = (n_users, len(table))
    users, rows, lags, last = own
    weights = torch.stack([torch.ones_like(lags), fading(lags, table, "middle")])
    ease, ease_recent = table.ease.spread(users, rows, weights, shape)
    knn, knn_recent = table.cosine.spread(users, rows, weights, shape)
    (following,) = table.following.spread(users[last], rows[last], weights[:1, last], shape)
    related = {
        f"related_{kind}": neighbours.spread(users, rows, weights[1:], shape)[0]
        for kind, neighbours in table.related.items()
    }
    factors = fold_in(table.factors, users, rows, n_users, gram=table.factor_gram)  # (B, Df)
    return {
        "ease": ease,
        "ease_recent": ease_recent,
        "item_knn": knn,
        "item_knn_recent": knn_recent,
        "next_visit": following,
        "ials": products(factors, table.factors),
        **related,
    }
