"""Ranking features of candidates for users, by the same code in training and in serving."""

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.data.interactions import MICROSECONDS_PER_DAY
from recsys.ranking.arithmetic import log1p, multiplied_together
from recsys.ranking.item_table import ItemTable
from recsys.ranking.profiles import HALF_LIVES, UserProfiles, fading
from recsys.ranking.user_events import UserEvents
from recsys.schema import RELATION_KINDS

# Levels of the category path with a feature; deeper levels are rare.
SHARE_LEVELS = 3

_PERIOD_NAMES = ("ever", "triple", "window", "half", "quarter")  # of ``PERIODS``
_RELATED = tuple(f"related_{kind}" for kind in RELATION_KINDS)

FEATURES = (
    "user_affinity",
    "profile_similarity",
    "max_similarity",
    "last_similarity",
    "ease",
    "ease_recent",
    "item_knn",
    "item_knn_recent",
    "next_visit",
    "ials",
    *_RELATED,
    "own_purchases",
    *(f"own_{name}" for name in HALF_LIVES),
    "own_interest",
    "own_recency",
    "own_interval",
    "own_due",
    "own_visit_share",
    *(f"users_{name}" for name in _PERIOD_NAMES),
    *(f"buyers_{name}" for name in _PERIOD_NAMES),
    "season_users",
    "trend",
    "no_events",
    "price_gap",
    "price_above_usual",
    "price_unknown",
    *(f"category_share_{level + 1}" for level in range(SHARE_LEVELS)),
    "age",
    "age_unknown",
    "history_length",
    "n_visits",
    "days_away",
)

# Features that only items with events have; training hides the events of some items at random. So
# it learns to judge those items by what is left, relations among it.
_OF_EVENTS = ("ease", "item_knn", "next", "ials", "own", "users", "buyers", "season", "trend")
COLD_VALUES = {name: 0.0 for name in FEATURES if name.startswith(_OF_EVENTS)} | {"no_events": 1.0}


def ranking_features(profiles: UserProfiles, candidates: Tensor, table: ItemTable) -> Tensor:
    """Return the features of every candidate of every user, float32 (B, C, F).

    The last dimension is in the order of ``FEATURES``; in memory it comes first. The features of a
    user do not depend on the other users of the batch: on a processor not even in the last bit.

    Args:
        profiles: Histories and simple scores of B users.
        candidates: Item rows, int64 (B, C), or (C,) where all users have the same.
        table: Values of every item.
    """
    events = profiles.events
    columns = {
        **_similarities(profiles, candidates, table),
        **dict.fromkeys(_RELATED, profiles.vectors.new_zeros(1, 1)),  # kinds without relations
        **{name: _at(scores, candidates) for name, scores in profiles.scores.items()},
        **_own_events(profiles, candidates, table),
        **_popularity(candidates, table),
        **_prices(events, candidates, table),
        **_category_shares(events, candidates, table),
        **_age(candidates, profiles.now_us[:, None], table),
        **_activity(events, table),
    }
    shape = (len(profiles), candidates.shape[-1])
    # To store one feature after the other is faster than any other order.
    return torch.stack([columns[name].expand(shape) for name in FEATURES]).permute(1, 2, 0)


def _at(values: Tensor, candidates: Tensor) -> Tensor:
    """Return the values (B, N) of each user's candidates, (B, C)."""
    return values[:, candidates] if candidates.dim() == 1 else values.gather(1, candidates)


def _similarities(
    profiles: UserProfiles, candidates: Tensor, table: ItemTable
) -> dict[str, Tensor]:
    events = profiles.events
    recency = fading(events.lags_days, table, "middle")
    means = events.sum_by_user(recency[:, None] * table.embeddings[events.rows])  # (B, D)
    shared = table.embeddings[candidates] if candidates.dim() == 1 else None
    found = means.new_empty(4, len(profiles), candidates.shape[-1])
    for some in multiplied_together(len(profiles), means.device):
        latest = _without_pads(events.latest[some])
        vectors = torch.cat(
            [
                profiles.vectors[some, None],
                F.normalize(means[some].clone(), dim=1)[:, None],
                table.embeddings[latest.clamp(min=0)],
            ],
            dim=1,
        )  # (B, 2 + S, D)
        offered = table.embeddings[candidates[some]] if shared is None else shared
        similarity = vectors @ offered.mT  # (B, 2 + S, C)
        found[:2, some] = similarity[:, :2].transpose(0, 1)
        found[2:, some] = _highest_and_last(similarity[:, 2:], latest < 0)
    names = ("user_affinity", "profile_similarity", "max_similarity", "last_similarity")
    return dict(zip(names, found, strict=True))


def _without_pads(latest: Tensor) -> Tensor:
    """Return the last items (B, S) without the columns that nobody has."""
    return latest[:, int((latest < 0).sum(dim=1).min()) if len(latest) else 0 :]


def _highest_and_last(similarity: Tensor, pads: Tensor) -> Tensor:
    """Return the highest and the last similarity (2, B, C) of (B, S, C); 0 without a last item."""
    if not similarity.shape[1]:
        return similarity.new_zeros(2, len(similarity), similarity.shape[2])
    highest = similarity.masked_fill(pads[:, :, None], -torch.inf).amax(dim=1)
    return torch.stack([highest, similarity[:, -1]]).masked_fill(pads[:, -1, None], 0.0)


def _own_events(profiles: UserProfiles, candidates: Tensor, table: ItemTable) -> dict[str, Tensor]:
    """Return the features of the user's own events on a candidate, all 0 without any."""
    events, own, pause = profiles.events, profiles.own, table.tempo.pause_days
    codes = own.users * len(table) + own.rows  # (R,), ascending
    pairs = torch.searchsorted(codes, events.users * len(table) + events.rows)  # (E,)
    bought = table.target_kinds[events.kinds].to(torch.float32)  # (E,)
    decayed = {name: bought * fading(events.lags_days, table, name) for name in HALF_LIVES}
    interest = (1 - bought) * fading(events.lags_days, table, "short")
    first = _first_of_visit(events, bought, len(table))

    def total(weights: Tensor) -> Tensor:
        return torch.zeros(len(codes), device=pairs.device).index_add_(0, pairs, weights)

    def lowest(values: Tensor) -> Tensor:
        lows = torch.full((len(codes),), torch.inf, device=pairs.device)
        return lows.scatter_reduce_(0, pairs[bought > 0], values[bought > 0], reduce="amin")

    count = total(bought)
    newest, oldest = lowest(events.ages_days), -lowest(-events.ages_days)
    repeated = count > 1
    interval = torch.where(repeated, (oldest - newest) / (count - 1), 0.0)
    due = torch.where(repeated & (interval > 0), newest / interval.clamp(min=1e-6), 0.0)
    values = {
        "own_purchases": log1p(count),
        **{f"own_{name}": log1p(total(weights)) for name, weights in decayed.items()},
        "own_interest": log1p(total(interest)),
        "own_recency": 1 / (1 + newest / pause),  # 0 for what the user never bought
        "own_interval": log1p(interval / pause),
        "own_due": log1p(due),
        "own_visit_share": total(first) / _n_visits(events)[own.users, 0],
    }
    # The last row is that of what the user never met.
    stacked = F.pad(torch.stack([*values.values()]), (0, 1))  # (features, R + 1)
    shape = (len(profiles), len(table))
    places = torch.full((shape[0] * shape[1],), len(codes), device=codes.device)
    places[codes] = torch.arange(len(codes), device=codes.device)
    at = _at(places.view(shape), candidates)
    return {name: row[at] for name, row in zip(values, stacked, strict=True)}


def _first_of_visit(events: UserEvents, bought: Tensor, n_items: int) -> Tensor:
    """Return 1 for the first purchase of an item in a visit, 0 for all other events, (E,).

    Args:
        events: Past events of B users.
        bought: 1 for a purchase, 0 for another event (E,).
        n_items: Catalogue size N.
    """
    purchases = bought.nonzero()[:, 0]
    n_visits = events.visits.max() + 1 if len(events.visits) else 1
    visits = events.users * n_visits + events.visits
    keys = visits[purchases] * n_items + events.rows[purchases]
    distinct, inverse = torch.unique(keys, return_inverse=True)
    first = torch.full_like(distinct, len(bought))
    first.scatter_reduce_(0, inverse, purchases, reduce="amin")
    return torch.zeros_like(bought).index_fill_(0, first, 1.0)


def _n_visits(events: UserEvents) -> Tensor:
    """Return each user's number of visits, at least 1, float32 (B, 1)."""
    oldest = torch.zeros(len(events.counts), dtype=torch.int64, device=events.visits.device)
    oldest.scatter_reduce_(0, events.users, events.visits, reduce="amax")
    return (oldest + 1).to(torch.float32)[:, None]


def _popularity(candidates: Tensor, table: ItemTable) -> dict[str, Tensor]:
    users = dict(zip(_PERIOD_NAMES, table.users[candidates].unbind(dim=-1), strict=True))
    buyers = dict(zip(_PERIOD_NAMES, table.buyers[candidates].unbind(dim=-1), strict=True))
    return {
        **{f"users_{name}": values for name, values in users.items()},
        **{f"buyers_{name}": values for name, values in buyers.items()},
        "season_users": table.season_users[candidates],
        "trend": users["quarter"] - users["triple"],
        "no_events": (users["ever"] == 0).to(torch.float32),
    }


def _prices(events: UserEvents, candidates: Tensor, table: ItemTable) -> dict[str, Tensor]:
    prices = table.log_prices[candidates]
    paid = table.log_prices[events.rows]
    weights = fading(events.lags_days, table, "long").masked_fill(paid.isnan(), 0.0)
    total = events.sum_by_user(weights)[:, None]  # (B, 1)
    usual = events.sum_by_user(weights * paid.nan_to_num())[:, None] / total.clamp(min=1e-9)
    known = ~prices.isnan() & (total > 0)
    above = torch.where(known, prices - usual, 0.0)
    unknown = prices.isnan().to(prices.dtype)
    return {"price_gap": above.abs(), "price_above_usual": above, "price_unknown": unknown}


def _category_shares(events: UserEvents, candidates: Tensor, table: ItemTable) -> dict[str, Tensor]:
    recency = fading(events.lags_days, table, "middle")
    shares = {}
    n_codes = table.n_categories + 1
    for level in range(SHARE_LEVELS):
        own, wanted = table.categories[events.rows, level], table.categories[candidates, level]
        weights = recency.masked_fill(own < 0, 0.0)
        totals = torch.zeros(len(events.counts) * n_codes, device=own.device)
        totals.index_add_(0, events.users * n_codes + own.clamp(min=0), weights)
        of_codes = totals.view(-1, n_codes) / events.sum_by_user(weights)[:, None].clamp(min=1e-9)
        share = _at(of_codes, wanted.clamp(min=0))
        shares[f"category_share_{level + 1}"] = share.masked_fill(wanted < 0, 0.0)
    return shares


def _age(candidates: Tensor, now_us: Tensor, table: ItemTable) -> dict[str, Tensor]:
    created_us = table.created_us[candidates]
    unknown = created_us == torch.iinfo(torch.int64).min
    # The unknown value would overflow the subtraction, so it is replaced first.
    age_us = (now_us - created_us.masked_fill(unknown, 0)).clamp(min=0)
    age = (age_us.to(torch.float32) / MICROSECONDS_PER_DAY).masked_fill(unknown, 0.0)
    window = table.tempo.window_days
    return {"age": log1p(age / window), "age_unknown": unknown.to(torch.float32)}


def _activity(events: UserEvents, table: ItemTable) -> dict[str, Tensor]:
    away = events.latest_by_user(events.ages_days)[:, None]
    return {
        "history_length": log1p(events.counts)[:, None],
        "n_visits": log1p(_n_visits(events)),
        "days_away": log1p(away / table.tempo.pause_days),
    }
