"""Simulate the sessions of shoppers, with views, carts and purchases, month by month."""

import itertools
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.data.arrays import Ints
from recsys.data.synthetic.products import Products
from recsys.data.synthetic.seasons import leaf_season, theme_season
from recsys.data.synthetic.shoppers import Shoppers

KINDS = ("view", "cart", "purchase")

# Utility, in the unit of the Gumbel noise of one choice.
_POPULARITY_NOISE = 1.0
_NOVELTY = 1.4
_LEAF_SEASON = 0.7
_THEME_SEASON = 1.0
_OFF_TOPIC = 4.0  # lost by a product of another type than the session is about
_OWNED = 4.0  # lost by a product that the shopper already carted or bought
_UNDECIDED = 0.7  # noise when deciding among the products just viewed

_NOVELTY_FADES_MONTHS = 2.0
_MEAN_EXTRA_VIEWS = 1.2
_MAX_VIEWS = 6
_CURIOSITY = 6.0  # extra sessions in a month, per share of the catalogue that arrives in it
_CART_SHARES = (0.65, 0.3)  # sessions that cart the best product viewed; of these, one more
_PURCHASE_SHARE = 0.6  # of carts
_SEVERAL_SHARE = 0.12  # of purchases that are of more than one unit

_SECOND_US = 1_000_000
_DAY_US = 86_400 * _SECOND_US
_SECONDS_PER_VIEW = 120.0


class Events(NamedTuple):
    """E events, oldest first; every field has shape (E,), kinds follow ``KINDS``."""

    user_rows: Ints
    item_rows: Ints
    kinds: Ints
    timestamps_us: Ints
    quantities: Ints


class _Sessions(NamedTuple):
    """S sessions: user, start, viewed product rows with the best first (S, V), and counts."""

    user_rows: Ints
    starts_us: Ints
    item_rows: Ints
    n_views: Ints
    n_carts: Ints


def simulate_events(
    products: Products,
    shoppers: Shoppers,
    *,
    arrival_months: Ints,
    month_starts: Sequence[datetime],
    rng: np.random.Generator,
) -> Events:
    """Return all events, oldest first.

    In each month a shopper has a Poisson number of sessions. A session is about one product type;
    the products viewed are those of highest utility plus Gumbel noise, that is, draws without
    replacement from a softmax (Yellott, 1977, https://doi.org/10.1016/0022-2496(77)90026-8).
    The best liked of them are carted, and some of these bought.

    Args:
        products: The catalogue, N products.
        shoppers: The shoppers, U of them.
        arrival_months: Month in which each product arrives (N,), 0 for products of the start.
            Events of a product begin in that month.
        month_starts: First instant of each month, then the end of the last.
        rng: Random generator for all draws.
    """
    utility = shoppers.utility(products)  # (U, N)
    utility += rng.normal(0.0, _POPULARITY_NOISE, len(products)).astype(np.float32)
    parts = []
    for month, (start, end) in enumerate(itertools.pairwise(month_starts)):
        users = _draw_visitors(shoppers, arrival_months, month, rng)
        topics = _draw_topics(shoppers, users, start.month, rng)
        present = np.flatnonzero(arrival_months <= month)
        appeal = utility[np.ix_(users, present)]  # (S, present)
        appeal += _novelty(arrival_months[present], month)
        appeal += (_THEME_SEASON * theme_season(start.month))[products.theme[present]]
        appeal -= np.float32(_OFF_TOPIC) * (products.leaf[present] != topics[:, None])
        sessions = _browse(appeal, users, present, start, end, rng)
        utility[_carted_pairs(sessions)] -= np.float32(_OWNED)
        parts.append(_events_of(sessions, rng))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.lexsort((columns[2], columns[0], columns[3]))
    return Events(*(column[order] for column in columns))


def _draw_visitors(
    shoppers: Shoppers, arrival_months: Ints, month: int, rng: np.random.Generator
) -> Ints:
    """Return the user row of each session of the month (S,)."""
    newcomers = np.mean(arrival_months == month) if month > 0 else 0.0
    rate = shoppers.activity * (1.0 + _CURIOSITY * newcomers) * (shoppers.joined <= month)
    return np.repeat(np.arange(len(shoppers)), rng.poisson(rate))


def _draw_topics(
    shoppers: Shoppers, users: Ints, calendar_month: int, rng: np.random.Generator
) -> Ints:
    """Return the product type that each session is about (S,)."""
    affinity = shoppers.types[users] + _LEAF_SEASON * leaf_season(calendar_month)
    topics: Ints = (affinity + _gumbel(affinity.shape, rng)).argmax(axis=1)
    return topics


def _browse(
    appeal: NDArray[np.float32],
    users: Ints,
    present: Ints,
    start: datetime,
    end: datetime,
    rng: np.random.Generator,
) -> _Sessions:
    """Return sessions whose products are viewed, and ordered by how much they are then liked."""
    n_shown = min(_MAX_VIEWS, len(present))
    n_views = np.minimum(1 + rng.poisson(_MEAN_EXTRA_VIEWS, len(users)), n_shown)
    noisy = appeal + _gumbel(appeal.shape, rng)
    shown = np.argpartition(noisy, -n_shown, axis=1)[:, -n_shown:]
    order = np.take_along_axis(noisy, shown, axis=1).argsort(axis=1)[:, ::-1]
    shown = np.take_along_axis(shown, order, axis=1)  # (S, V), what is seen first comes first
    doubts = rng.normal(0.0, _UNDECIDED, shown.shape)
    second_thoughts = np.take_along_axis(appeal, shown, axis=1) + doubts
    second_thoughts[np.arange(n_shown) >= n_views[:, None]] = -np.inf
    best_first = second_thoughts.argsort(axis=1)[:, ::-1]
    draws = rng.random((len(users), len(_CART_SHARES)))
    n_carts = (draws < _CART_SHARES).cumprod(axis=1).sum(axis=1)
    return _Sessions(
        user_rows=users,
        starts_us=_draw_starts(len(users), start, end, rng),
        item_rows=present[np.take_along_axis(shown, best_first, axis=1)],
        n_views=n_views,
        n_carts=np.minimum(n_carts, n_views),
    )


def _carted_pairs(sessions: _Sessions) -> tuple[Ints, Ints]:
    session, position = np.nonzero(
        np.arange(sessions.item_rows.shape[1]) < sessions.n_carts[:, None]
    )
    return sessions.user_rows[session], sessions.item_rows[session, position]


def _events_of(sessions: _Sessions, rng: np.random.Generator) -> Events:
    """Return the views, then the carts, then the purchases of ``sessions``."""
    n_sessions, n_shown = sessions.item_rows.shape
    positions = np.arange(n_shown)
    viewed = positions < sessions.n_views[:, None]
    carted = positions < sessions.n_carts[:, None]
    bought = carted & (rng.random(carted.shape) < _PURCHASE_SHARE)
    # Views come in random order, so that their order carries no information.
    view_turn = rng.random((n_sessions, n_shown)).argsort(axis=1)
    parts = []
    for kind, (happened, turn) in enumerate(
        ((viewed, view_turn), (carted, n_shown + positions), (bought, 2 * n_shown + positions))
    ):
        session, position = np.nonzero(happened)
        turns = np.broadcast_to(turn, happened.shape)[session, position]
        seconds = _SECONDS_PER_VIEW * (turns + rng.random(len(session)))
        several = (rng.random(len(session)) < _SEVERAL_SHARE) & (kind == KINDS.index("purchase"))
        parts.append(
            (
                sessions.user_rows[session],
                sessions.item_rows[session, position],
                np.full(len(session), kind),
                sessions.starts_us[session] + (seconds * _SECOND_US).astype(np.int64),
                np.where(several, rng.integers(2, 5, len(session)), 1),
            )
        )
    return Events(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _draw_starts(n_sessions: int, start: datetime, end: datetime, rng: np.random.Generator) -> Ints:
    """Return session starts, in microseconds since 1970, most of them in the evening (S,)."""
    start_us = int(start.timestamp()) * _SECOND_US
    days = rng.integers((end - start).days, size=n_sessions)
    hours = np.clip(rng.normal(18.0, 4.0, n_sessions), 0.0, 22.5)  # sessions end before midnight
    return start_us + days * _DAY_US + (hours * 3600.0).astype(np.int64) * _SECOND_US


def _novelty(arrival_months: Ints, month: int) -> NDArray[np.float32]:
    """Return how much each product gains from being new, 0 for products of the start (N,)."""
    fading = _NOVELTY * np.exp((arrival_months - month) / _NOVELTY_FADES_MONTHS)
    return np.where(arrival_months > 0, fading, 0.0).astype(np.float32)


def _gumbel(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    # Single precision draws an exact 0 now and then, whose noise would be infinite.
    return -np.log(np.maximum(rng.standard_exponential(shape, dtype=np.float32), 1e-7))
