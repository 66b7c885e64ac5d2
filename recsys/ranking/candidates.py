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
from recsys.ranking.item_table import ItemTable
from recsys.ranking.profiles import UserProfiles

# A catalogue up to this size is ranked whole. Beyond it each source offers its best rows.
RANK_ALL_ITEMS = 1_000
# Names of the sources; an item that stands equally high in two is named after the first.
SOURCES = tuple(OffersConfig.model_fields)
OWN, RELATED, TASTE, POPULAR, NEW = "own_history", "related", "taste", "popular", "new"


class Candidates(NamedTuple):
    """Items to rank for each of B users.

    Args:
        rows: Item rows, int64 (B, C), or (C,) where all users have the same.
        allowed: Which of them may be shown to which user, bool (B, C).
        scores: What each source that is on scores all items by; see ``source_scores``.
    """

    rows: Tensor
    allowed: Tensor
    scores: Mapping[str, Tensor]


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
            mask: Which rows may be returned (N,).
            table: What is known of the items.
            exclude_seen: Whether items of the user's own history are left out.
            at_least: Number of items that are wanted; where the popular ones are offered, they fill
                up to it.
        """
        scores = self.scores(profiles, table)
        allowed = _allowed(profiles, mask, exclude_seen=exclude_seen)
        rows = torch.from_numpy(np.flatnonzero(mask)).to(allowed.device)
        if len(rows) <= self._rank_all_up_to:
            return Candidates(rows, allowed[:, rows], scores)
        offered = torch.zeros_like(allowed)
        for _, rows_of_source in self._offered(scores, allowed, at_least):
            offered |= rows_of_source
        return _pack(offered & allowed, scores)

    def given(self, profiles: UserProfiles, rows: Tensor, table: ItemTable) -> Candidates:
        """Return some item rows (C,) as the candidates of all users."""
        allowed = torch.ones(len(profiles), len(rows), dtype=torch.bool, device=rows.device)
        return Candidates(rows, allowed, self.scores(profiles, table))

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
        offered = self._offered(self.scores(profiles, table), allowed, 0)
        return {name: rows & allowed for name, rows in offered}

    def ranks_all(self, mask: NDArray[np.bool_]) -> bool:
        """Return whether all rows of the mask (N,) are ranked."""
        return int(mask.sum()) <= self._rank_all_up_to

    def scores(self, profiles: UserProfiles, table: ItemTable) -> dict[str, Tensor]:
        """Return ``source_scores`` of the sources that are on."""
        found = source_scores(profiles, table)
        return {name: found[name] for name in SOURCES if self.offers[name]}

    def _offered(
        self, scores: Mapping[str, Tensor], allowed: Tensor, at_least: int
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield which allowed items each source offers (B, N)."""
        for name, values in scores.items():
            wanted = max(self.offers[name], at_least) if name == POPULAR else self.offers[name]
            top = values.expand(allowed.shape).masked_fill(~allowed, -torch.inf)
            best = top.topk(min(wanted, allowed.shape[1]), dim=1)
            # Items that nobody took are popular last, so that there is always something to rank.
            speaks = best.values > (-torch.inf if name == POPULAR else 0)
            yield name, torch.zeros_like(allowed).scatter_(1, best.indices, speaks)


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
        TASTE: products(profiles.vectors, table.embeddings).masked_fill(~has_events, 0.0),
        POPULAR: table.users[None, :, -1] + 1e-3 * table.users[None, :, 0],
        NEW: table.created_us[None].to(torch.float64),
    }


def strongest_source(candidates: Candidates, places: Tensor, own: Tensor) -> Tensor:
    """Return the source that speaks most for some candidates (B, K), in host memory.

    Sources are positions in ``SOURCES``.

    The source is the one in which the item stands highest among the user's candidates; the first of
    ``SOURCES`` among equals. The user's own items are always "own_history" where that is on, and an
    item of which no source says anything is "new".

    Args:
        candidates: All candidates of B users.
        places: Positions of K of them (B, K).
        own: Which items the user's history has, bool (B, N).
    """
    rows, allowed = candidates.rows, candidates.allowed
    n_candidates, n_sources = allowed.shape[1], len(SOURCES)
    if not candidates.scores or not n_candidates:
        return torch.full_like(places, SOURCES.index(NEW)).cpu()
    each = rows.expand(allowed.shape)
    found = [one.expand(len(each), -1).gather(1, each) for one in candidates.scores.values()]
    scores = torch.stack([one.to(torch.float32) for one in found])  # (S, B, C)
    scores.masked_fill_(~allowed, -torch.inf)
    mine = scores.gather(2, places.expand(len(scores), -1, -1)).cpu()  # (S, B, K)
    # numpy sorts ten times as fast as torch does on a processor.
    ordered = torch.from_numpy(np.sort(scores.cpu().numpy(), axis=2))
    above = n_candidates - torch.searchsorted(ordered, mine, right=True)
    above.masked_fill_(mine <= 0, n_candidates)
    if OWN in candidates.scores:
        above[0].masked_fill_(own.gather(1, each.gather(1, places)).cpu(), -1)
    codes = torch.tensor([SOURCES.index(name) for name in candidates.scores])
    first = (above * n_sources + codes[:, None, None]).amin(dim=0)  # (B, K)
    return torch.where(first < n_candidates * n_sources, first % n_sources, SOURCES.index(NEW))


def best_places(scores: Tensor, k: int) -> Tensor:
    """Return the positions of the ``k`` highest scores (B, K), the first among equals.

    Which of equals ``topk`` returns depends on the batch, so it is called with whole numbers in the
    order of the scores, of which no two are equal.
    """
    bits = (scores.to(torch.float32) + 0.0).view(torch.int32)  # -0 becomes 0
    ordered = torch.where(bits >= 0, bits, bits ^ 0x7FFFFFFF).to(torch.int64)
    from_end = torch.arange(scores.shape[1], 0, -1, device=scores.device)
    keys = (ordered << 32) + from_end
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


def _allowed(profiles: UserProfiles, mask: NDArray[np.bool_], *, exclude_seen: bool) -> Tensor:
    """Return which rows of the mask may be shown to each user, bool (B, N)."""
    device = profiles.seen.device
    allowed = torch.from_numpy(mask).to(device).expand(len(profiles), -1)
    return allowed & ~profiles.seen if exclude_seen else allowed


def _pack(offered: Tensor, scores: Mapping[str, Tensor]) -> Candidates:
    """Return the marked items (B, N) as padded rows (B, C)."""
    counts = offered.sum(dim=1)
    users, items = offered.nonzero(as_tuple=True)
    places = torch.arange(len(users), device=users.device)
    places = places - (counts.cumsum(0) - counts)[users]
    width = max(1, int(counts.max()))
    rows = torch.zeros(len(offered), width, dtype=torch.int64, device=users.device)
    rows[users, places] = items
    allowed = torch.arange(width, device=users.device) < counts[:, None]
    return Candidates(rows, allowed, scores)
