"""Which items are worth ranking for a user: the whole catalogue, or the best of each source."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.ranking.item_table import ItemTable
from recsys.ranking.profiles import UserProfiles

# A catalogue up to this size is ranked whole. Beyond it each source offers its best rows.
RANK_ALL_ITEMS = 1_000
OFFERS_PER_SOURCE = 200


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
        offers_per_source: Number of items that each source offers beyond that.
    """

    def __init__(
        self,
        *,
        rank_all_up_to: int = RANK_ALL_ITEMS,
        offers_per_source: int = OFFERS_PER_SOURCE,
    ) -> None:
        self._rank_all_up_to = rank_all_up_to
        self._n_offers = offers_per_source

    def choose(
        self,
        profiles: UserProfiles,
        mask: NDArray[np.bool_],
        table: ItemTable,
        *,
        exclude_seen: bool,
    ) -> Candidates:
        """Return the candidates of each user, on the device of the table.

        Args:
            profiles: Histories and simple scores of B users.
            mask: Which rows may be returned (N,).
            table: What is known of the items.
            exclude_seen: Whether items of the user's own history are left out.
        """
        device = table.embeddings.device
        allowed = torch.from_numpy(mask).to(device).expand(len(profiles), -1)  # (B, N)
        if exclude_seen:
            allowed = allowed & ~profiles.seen
        rows = torch.from_numpy(np.flatnonzero(mask)).to(device)
        if len(rows) <= self._rank_all_up_to:
            return Candidates(rows, allowed[:, rows])
        offered = torch.zeros_like(allowed)
        n_offers = min(self._n_offers, len(rows))
        for scores in source_scores(profiles, table).values():
            top = scores.expand(len(profiles), -1).masked_fill(~allowed, -torch.inf)
            offered.scatter_(1, top.topk(n_offers, dim=1).indices, True)
        if not exclude_seen:
            offered |= profiles.seen
        return _pack(offered & allowed)


def source_scores(profiles: UserProfiles, table: ItemTable) -> dict[str, Tensor]:
    """Return what each source scores the items by, (B, N) or (1, N), by the source's name."""
    return {
        "taste": profiles.vectors @ table.embeddings.T,
        "together": profiles.scores["ease"] + 1e-6 * profiles.scores["item_knn"],
        "together_recent": profiles.scores["item_knn_recent"],
        "next_visit": profiles.scores["next_visit"],
        "similar_users": profiles.scores["ials"],
        "popular": table.users[None, :, -1] + 1e-3 * table.users[None, :, 0],
        "new": table.created_us[None].to(torch.float64),
    }


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
