"""Which items are worth ranking for a user: the whole catalogue, or the best of each source."""

import difflib
from collections.abc import Iterator, Mapping
from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.config import OffersConfig
from recsys.errors import InvalidArgumentError
from recsys.ranking.arithmetic import products
from recsys.ranking.features import FEATURES
from recsys.ranking.item_table import ItemTable
from recsys.ranking.profiles import UserProfiles
from recsys.schema import RELATION_KINDS

# A catalogue up to this size is ranked whole. Beyond it each source offers its best rows.
RANK_ALL_ITEMS = 1_000
# Names of the sources; an item that stands equally high in two is named after the first.
SOURCES = tuple(OffersConfig.model_fields)
OWN, RELATED, TASTE, POPULAR, NEW = "own_history", "related", "taste", "popular", "new"
BLOCK = 64  # neighbouring items of which the largest score is read first
_COLUMNS = {
    name: FEATURES.index(name)
    for name in (
        *("next_visit", "ease", "item_knn", "item_knn_recent", "ials", "user_affinity"),
        *(f"related_{kind}" for kind in RELATION_KINDS),
        *("users_quarter", "users_ever", "age", "age_unknown", "history_length"),
    )
}


class Candidates(NamedTuple):
    """Items to rank for each of B users.

    Args:
        rows: Item rows, int64 (B, C), or (C,) where all users have the same.
        allowed: Which of them may be shown to which user, bool (B, C).
    """

    rows: Tensor
    allowed: Tensor


class CandidateSource:
    """Chooses the items to rank.

    Args:
        rank_all_up_to: Number of allowed items up to which all of them are ranked.
        offers: Number of items that sources offer beyond that, by the source's name; 0 turns a
            source off. Sources without an entry have the default of ``OffersConfig``.

    Raises:
        InvalidArgumentError: If ``offers`` names an unknown source, or a number is not a whole one
            of at least 0.
    """

    def __init__(
        self, *, rank_all_up_to: int = RANK_ALL_ITEMS, offers: Mapping[str, int] = {}
    ) -> None:
        self._rank_all_up_to = rank_all_up_to
        self.offers = read_offers(offers)

    def choose(
        self,
        profiles: UserProfiles,
        mask: NDArray[np.bool_],
        table: ItemTable,
        *,
        exclude_seen: bool,
        at_least: int = 0,
    ) -> Candidates:
        """Return the candidates of each user, on the device of the table.

        Args:
            profiles: Histories and simple scores of B users.
            mask: Which rows may be returned to all users (N,), or to each (B, N).
            table: What is known of the items.
            exclude_seen: Whether items of the user's own history are left out.
            at_least: Number of items that are wanted; where the popular ones are offered, they fill
                up to it.
        """
        allowed = _allowed(profiles, mask, exclude_seen=exclude_seen)
        whole = torch.from_numpy(self.ranks_all(mask)).to(allowed.device)
        if mask.ndim == 1 and whole:
            rows = torch.from_numpy(np.flatnonzero(mask)).to(allowed.device)
            return Candidates(rows, allowed[:, rows])
        offered = whole[..., None].expand(allowed.shape).clone()
        if not whole.all():
            for _, one in self._offered(profiles, allowed, table, at_least):
                _mark(offered, one)
        return _pack(offered & allowed)

    def by_source(
        self,
        profiles: UserProfiles,
        mask: NDArray[np.bool_],
        table: ItemTable,
        *,
        exclude_seen: bool,
    ) -> dict[str, Tensor]:
        """Return which items each source offers, bool (B, N), however small the catalogue is."""
        allowed = _allowed(profiles, mask, exclude_seen=exclude_seen)
        offered = self._offered(profiles, allowed, table, 0)
        return {name: _mark(torch.zeros_like(allowed), one) for name, one in offered}

    def ranks_all(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return whether all rows of a mask (N,) are ranked, or of each of several (B, N)."""
        return np.asarray(mask.sum(axis=-1) <= self._rank_all_up_to)

    def strongest(self, features: Tensor, allowed: Tensor, places: Tensor, own: Tensor) -> Tensor:
        """Return the source that speaks most for some candidates (B, K), in host memory.

        Sources are positions in ``SOURCES``. The source is the one in which the item stands highest
        among the user's candidates; the first of ``SOURCES`` among equals. The user's own items are
        always "own_history" where that is on, and an item of which no source says anything is
        "new".

        Args:
            features: Features of all candidates (B, C, F).
            allowed: Which of them may be shown, bool (B, C).
            places: Positions of K of them (B, K).
            own: Which of the K the user's history has, bool (B, K).
        """
        names = [name for name in SOURCES if self.offers[name] and name != OWN]
        found = feature_scores(features)
        # numpy sorts faster than torch on a processor, and its small steps cost less.
        scores = np.array([found[name] for name in [*names, NEW]])  # (S, B, C)
        np.copyto(scores, -np.inf, where=~allowed.cpu().numpy())
        mine = np.take_along_axis(scores, places.cpu().numpy()[None], axis=2)  # (S, B, K)
        ordered, n = torch.from_numpy(np.sort(scores, axis=2)), scores.shape[2]
        above = n - torch.searchsorted(ordered, torch.from_numpy(mine), right=True).numpy()
        above[mine <= 0] = n
        above[-1] = n  # where no source says anything
        codes = np.array([SOURCES.index(name) for name in [*names, NEW]])
        # No two are equal, so the first source wins a tie.
        first = (above * len(SOURCES) + codes[:, None, None]).argmin(axis=0)  # (B, K)
        strongest = np.where(above.min(axis=0) < n, codes[first], SOURCES.index(NEW))
        if self.offers[OWN]:
            strongest[own.cpu().numpy()] = SOURCES.index(OWN)
        return torch.from_numpy(strongest)

    def _offered(
        self, profiles: UserProfiles, allowed: Tensor, table: ItemTable, at_least: int
    ) -> Iterator[tuple[str, Candidates]]:
        """Yield which allowed items each source offers."""
        for name, scores in source_scores(profiles, table).items():
            if self.offers[name]:
                wanted = max(self.offers[name], at_least if name == POPULAR else 0)
                # Items that nobody took are popular last, so that there is something to rank.
                yield name, _best(scores, allowed, wanted, -torch.inf if name == POPULAR else 0.0)


def read_offers(offers: Mapping[str, int]) -> dict[str, int]:
    """Return the number of items that each of ``SOURCES`` offers.

    Raises:
        InvalidArgumentError: If a name is not that of a source, a number is not a whole one of at
            least 0, or all of them are 0.
    """
    for name, count in offers.items():
        if name not in SOURCES:
            near = difflib.get_close_matches(str(name), SOURCES, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InvalidArgumentError(
                f"offers must name sources out of {', '.join(SOURCES)}, got {name!r}{hint}"
            )
        if not isinstance(count, Integral) or isinstance(count, bool) or count < 0:
            raise InvalidArgumentError(
                f"offers[{name!r}] must be a whole number, 0 or more, got {count!r}"
            )
    found = OffersConfig().model_dump() | {name: int(count) for name, count in offers.items()}
    if not any(found.values()):
        raise InvalidArgumentError("offers must leave at least one source on, got 0 for all")
    return found


def source_scores(profiles: UserProfiles, table: ItemTable) -> dict[str, Tensor]:
    """Return what each source scores all items by, (B, N) or (1, N), by the source's name.

    A source says nothing of an item whose score is 0 or less.
    """
    has_events = profiles.events.counts[:, None] > 0
    related = [profiles.scores[f"related_{kind}"] for kind in table.related]
    return {
        OWN: _own_recency(profiles, table),
        "next_visit": profiles.scores["next_visit"],
        "together": profiles.scores["ease"] + 1e-6 * profiles.scores["item_knn"],
        "together_recent": profiles.scores["item_knn_recent"],
        "similar_users": profiles.scores["ials"],
        RELATED: sum(related, profiles.vectors.new_zeros(1, len(table))),
        TASTE: products(profiles.vectors * has_events, table.embeddings),
        POPULAR: table.popularity[None],
        NEW: table.created_us[None],
    }


def feature_scores(features: Tensor) -> dict[str, NDArray[np.float32]]:
    """Return ``source_scores`` of candidates from their features (B, C, F), for the order alone.

    The scores (B, C) are in host memory. The user's own items have none here.
    """
    wanted = torch.tensor([*_COLUMNS.values()], device=features.device)
    columns = features.permute(2, 0, 1).index_select(0, wanted).cpu().numpy()
    of = dict(zip(_COLUMNS, columns, strict=True))
    return {
        "next_visit": of["next_visit"],
        "together": of["ease"] + np.float32(1e-6) * of["item_knn"],
        "together_recent": of["item_knn_recent"],
        "similar_users": of["ials"],
        RELATED: sum((of[f"related_{kind}"] for kind in RELATION_KINDS), np.float32(0)),
        TASTE: of["user_affinity"] * (of["history_length"] > 0),
        POPULAR: of["users_quarter"] + np.float32(1e-3) * of["users_ever"],
        NEW: np.exp(-of["age"]) * (of["age_unknown"] == 0),
    }


def best_places(scores: Tensor, k: int) -> Tensor:
    """Return the positions of the ``k`` highest scores (B, K), the first among equals.

    Which of equals ``topk`` returns depends on the batch. Where there are any, it is called with
    whole numbers in the order of the scores, of which no two are equal.
    """
    top = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    if bool((top.values[:, 1:] < top.values[:, :-1]).all()):
        return top.indices[:, :k]
    bits = (scores.to(torch.float32) + 0.0).view(torch.int32)  # -0 becomes 0
    ordered = torch.where(bits >= 0, bits, bits ^ 0x7FFFFFFF).to(torch.int64)
    keys = (ordered << 32) + torch.arange(scores.shape[1], 0, -1, device=scores.device)
    return keys.topk(min(k, scores.shape[1]), dim=1).indices


def _own_recency(profiles: UserProfiles, table: ItemTable) -> Tensor:
    """Return a score above 0 for the items of each user's past events, the last highest (B, N).

    What a history has at or after the moment of the request counts nowhere, or a replay of the past
    would offer what the user took next.
    """
    own = profiles.own
    recency = torch.zeros(profiles.seen.shape, device=profiles.seen.device)
    recency[own.users, own.rows] = 1 / (1 + own.lags_days / table.tempo.pause_days)
    return recency


def _best(scores: Tensor, allowed: Tensor, k: int, least: float) -> Candidates:
    """Return the best ``k`` allowed items by score (B, N) or (1, N), of those above ``least``.

    To hide what is not allowed costs most in a large catalogue. There the best of all are found
    first, as most items are allowed mostly, and the others are hidden only for users for whom too
    few of those are left.
    """
    n_items = allowed.shape[1]
    if n_items < 2 * k * BLOCK:
        return _best_of_rest(scores, allowed, min(k, n_items), least)
    values, rows = _largest(scores, 2 * k)
    rows = rows.expand(len(allowed), -1)
    offered = (values > least) & allowed.gather(1, rows)
    short = (offered.sum(dim=1) < k) & (values[:, -1] > least)
    offered &= offered.cumsum(dim=1) <= k
    if short.any():
        best = _best_of_rest(scores.expand(allowed.shape)[short], allowed[short], k, least)
        rows, offered[short] = rows.clone(), False
        rows[short, :k], offered[short, :k] = best
    return Candidates(rows, offered)


def _best_of_rest(scores: Tensor, allowed: Tensor, k: int, least: float) -> Candidates:
    """Return what ``_best`` does, by hiding what is not allowed."""
    lowest = _lowest(scores)
    best = scores.expand(allowed.shape).masked_fill(~allowed, lowest).topk(k, dim=1)
    return Candidates(best.indices, best.values > max(least, lowest))


def _largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the ``k`` largest scores of each row (B, N), largest first, and their columns (B, k).

    They all lie in the ``k`` blocks with the largest maxima, so that the rest is read only once.
    """
    n_blocks = scores.shape[1] // BLOCK
    whole = n_blocks * BLOCK
    blocks = scores[:, :whole].unflatten(1, (n_blocks, BLOCK))
    chosen = blocks.amax(dim=2).topk(k, dim=1).indices[..., None]  # (B, k, 1)
    rows = (chosen * BLOCK + torch.arange(BLOCK, device=chosen.device)).flatten(1)
    rest = torch.arange(whole, scores.shape[1], device=rows.device).expand(len(rows), -1)
    rows = torch.cat([rows, rest], dim=1)
    best = scores.gather(1, rows).topk(k, dim=1)
    return best.values, rows.gather(1, best.indices)


def _lowest(scores: Tensor) -> float | int:
    """Return a value below all scores of this type."""
    return -torch.inf if scores.is_floating_point() else torch.iinfo(scores.dtype).min


def _mark(offered: Tensor, candidates: Candidates) -> Tensor:
    """Add candidates to what is offered, bool (B, N), and return it."""
    users, places = candidates.allowed.nonzero(as_tuple=True)
    offered[users, candidates.rows[users, places]] = True
    return offered


def _allowed(profiles: UserProfiles, mask: NDArray[np.bool_], *, exclude_seen: bool) -> Tensor:
    """Return which rows of the mask may be shown to each user, bool (B, N)."""
    device = profiles.seen.device
    allowed = torch.from_numpy(mask).to(device).expand(len(profiles), mask.shape[-1])
    return allowed & ~profiles.seen if exclude_seen else allowed


def _pack(offered: Tensor) -> Candidates:
    """Return the marked items (B, N) as padded rows (B, C)."""
    counts = offered.sum(dim=1)
    users, items = offered.nonzero(as_tuple=True)
    places = torch.arange(len(users), device=users.device)
    places = places - (counts.cumsum(0) - counts)[users]
    width = max(1, int(counts.max()))
    rows = torch.zeros(len(offered), width, dtype=torch.int64, device=users.device)
    rows[users, places] = items
    return Candidates(rows, torch.arange(width, device=users.device) < counts[:, None])
