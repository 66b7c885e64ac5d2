"""Score candidates for users: user encoder, features and ranker as one step."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from recsys.data.arrays import Ints
from recsys.data.interactions import History, Moment
from recsys.models.user_encoder import UserEncoder, pad_histories
from recsys.ranking.arithmetic import multiplied_together
from recsys.ranking.features import FEATURES, ranking_features
from recsys.ranking.item_table import ItemTable
from recsys.ranking.profiles import UserProfiles, read_profiles
from recsys.ranking.rankers import Ranker


class Scores(NamedTuple):
    """Scores of candidates (B, C) and the features that they come from (B, C, F)."""

    scores: Tensor
    features: Tensor


class UserRanker:
    """Ranks candidates by a user's history, in offline evaluation and in the service.

    Args:
        encoder: Network from a history to a user vector; put in evaluation mode, as are rankers.
        ranker: Ranker of all items.
        discovery: Ranker where items of the user's own history are left out; None takes the same.
    """

    def __init__(
        self, encoder: UserEncoder, ranker: Ranker, discovery: Ranker | None = None
    ) -> None:
        self.encoder = encoder.eval()
        self.ranker = ranker
        self.discovery = ranker if discovery is None else discovery
        for one in (self.ranker, self.discovery):
            if isinstance(one, nn.Module):
                one.eval()

    def to(self, device: str) -> "UserRanker":
        """Move the networks to a device and return this ranker."""
        self.encoder.to(device)
        self.ranker.to(device)
        self.discovery.to(device)
        return self

    @torch.inference_mode()
    def profiles(
        self, histories: Sequence[History], now_us: Moment, table: ItemTable
    ) -> UserProfiles:
        """Return the profiles of users by the events before each one's moment.

        Args:
            histories: Events of each user (B entries).
            now_us: Moment of each request, microseconds UTC, (B,) or one for all.
            table: Values of every item.
        """
        moments = np.broadcast_to(np.asarray(now_us, dtype=np.int64), (len(histories),)).copy()
        vectors = encode_users(self.encoder, histories, moments, table.embeddings)
        return read_profiles(histories, moments, table, vectors)

    @torch.inference_mode()
    def score(
        self,
        profiles: UserProfiles,
        candidates: Tensor,
        table: ItemTable,
        *,
        exclude_seen: bool = False,
    ) -> Scores:
        """Return scores and features of each user's candidates.

        Args:
            profiles: Result of ``profiles`` for B users.
            candidates: Item rows, int64 (B, C), or (C,) where all users have the same.
            table: Values of every item.
            exclude_seen: Whether the user's own items are left out of the answer, which may have a
                ranker of its own.
        """
        features = ranking_features(profiles, candidates, table)
        ranker = self.discovery if exclude_seen else self.ranker
        return Scores(ranker(features), features)

    def top_features(
        self, features: Tensor, n: int = 3, *, exclude_seen: bool = False
    ) -> list[tuple[tuple[str, float], ...]]:
        """Return up to ``n`` features that raised the score of each candidate, largest first."""
        ranker = self.discovery if exclude_seen else self.ranker
        values, columns = ranker.contributions(features).topk(n, dim=1)
        return [
            tuple(
                (FEATURES[column], value) for column, value in zip(*pair, strict=True) if value > 0
            )
            for pair in zip(columns.tolist(), values.tolist(), strict=True)
        ]


def encode_users(
    encoder: UserEncoder, histories: Sequence[History], now_us: Ints, embeddings: Tensor
) -> Tensor:
    """Return user vectors (B, D) for the events of each history before its ``now_us`` (B,)."""
    device = embeddings.device
    longest = max((len(history.item_rows) for history in histories), default=0)
    padded = pad_histories(histories, max(1, min(longest, encoder.history_length)), now_us)
    counts = padded.mask.sum(axis=1)
    vectors = embeddings.new_empty(len(histories), encoder.dim)
    for some in multiplied_together(len(histories), device):
        latest = slice(-max(1, int(counts[some].max(initial=0))), None)  # pads change nothing
        rows, ages_days, kinds, mask = (
            torch.as_tensor(column[some, latest], device=device) for column in padded
        )
        vectors[some] = encoder(embeddings[rows], ages_days, kinds, mask)
    return vectors
