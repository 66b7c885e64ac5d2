"""Which items are worth ranking for a user: the whole catalogue, or the best of each source."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recsys.catalogue.search import CatalogueSearch
from recsys.data.interactions import History
from recsys.ranking.features import ItemTable

# A catalogue up to this size is ranked whole. Beyond it each source offers its best rows.
RANK_ALL_ITEMS = 5_000
OFFERS_PER_SOURCE = 500


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
        search: Search over the catalogue.
        rank_all_up_to: Number of allowed items up to which all of them are ranked.
        offers_per_source: Number of items that each source offers beyond that.
    """

    def __init__(
        self,
        search: CatalogueSearch,
        *,
        rank_all_up_to: int = RANK_ALL_ITEMS,
        offers_per_source: int = OFFERS_PER_SOURCE,
    ) -> None:
        self._search = search
        self._rank_all_up_to = rank_all_up_to
        self._n_offers = offers_per_source

    def choose(
        self,
        histories: Sequence[History],
        user_vectors: Tensor,
        mask: NDArray[np.bool_],
        table: ItemTable,
        *,
        exclude_seen: bool,
    ) -> Candidates:
        """Return the candidates of each user, on the device of the table.

        Args:
            histories: Events of each user (B entries).
            user_vectors: Output of the user encoder for them (B, D).
            mask: Which rows may be returned (N,).
            table: What is known of the items.
            exclude_seen: Whether items of the user's own history are left out.
        """
        device = table.embeddings.device
        seen = seen_items(histories, len(mask)) if exclude_seen else None
        rows = np.flatnonzero(mask)
        if len(rows) <= self._rank_all_up_to:
            allowed = np.ones((len(histories), len(rows)), dtype=np.bool_)
            if seen is not None:
                allowed = ~seen[:, rows]
            return Candidates(torch.from_numpy(rows).to(device), torch.from_numpy(allowed))
        each = [
            self._of_user(history, vector, mask & ~seen[n] if seen is not None else mask, table)
            for n, (history, vector) in enumerate(zip(histories, user_vectors, strict=True))
        ]
        padded = pad_sequence(each, batch_first=True, padding_value=-1)  # (B, C)
        return Candidates(padded.clamp(min=0).to(device), padded >= 0)

    def _of_user(
        self, history: History, user_vector: Tensor, mask: NDArray[np.bool_], table: ItemTable
    ) -> Tensor:
        """Return the rows worth ranking (C,): all under the mask, or the best of each source."""
        rows = torch.from_numpy(np.flatnonzero(mask))
        if len(rows) <= self._rank_all_up_to:
            return rows
        neighbours, _ = table.neighbours(torch.from_numpy(np.unique(history.item_rows)))
        allowed = rows.to(table.embeddings.device)

        def first(values: Tensor) -> Tensor:
            n_offers = min(self._n_offers, len(allowed))
            return allowed[values[allowed].topk(n_offers).indices].cpu()

        near = self._search.by_vector(user_vector, mask, self._n_offers).rows
        offered = torch.cat(
            [
                near.cpu(),
                neighbours[neighbours >= 0].cpu(),
                torch.from_numpy(history.item_rows),
                first(table.popularity[:, 1]),
                first(table.created_us),
            ]
        ).unique()
        allowed_offers: Tensor = offered[torch.from_numpy(mask)[offered]]
        return allowed_offers


def seen_items(histories: Sequence[History], n_items: int) -> NDArray[np.bool_]:
    """Return which items each history has, (B, N)."""
    seen = np.zeros((len(histories), n_items), dtype=np.bool_)
    users = np.repeat(np.arange(len(histories)), [len(one.item_rows) for one in histories])
    seen[users, np.concatenate([one.item_rows for one in histories])] = True
    return seen
