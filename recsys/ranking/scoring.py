"""Score candidates for users: user encoder, features and ranker as one step."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recsys.data.interactions import History
from recsys.models.ranker import Ranker
from recsys.models.user_encoder import UserEncoder, pad_histories
from recsys.ranking.features import FEATURES, ItemTable, ranking_features


class Scores(NamedTuple):
    """Scores of candidates (B, C) and the features that they come from (B, C, F)."""

    scores: Tensor
    features: Tensor


class UserRanker:
    """Ranks candidates by a user's history, in offline evaluation and in the service.

    Args:
        encoder: Network from a history to a user vector.
        ranker: Network from features to a logit.
    """

    def __init__(self, encoder: UserEncoder, ranker: Ranker) -> None:
        self.encoder = encoder.eval()
        self.ranker = ranker.eval()

    def to(self, device: str) -> "UserRanker":
        """Move both networks to a device and return this ranker."""
        self.encoder.to(device)
        self.ranker.to(device)
        return self

    @torch.inference_mode()
    def user_vectors(self, histories: Sequence[History], now_us: int, table: ItemTable) -> Tensor:
        """Return user vectors (B, D) for the events of each history before ``now_us``."""
        moments = np.full(len(histories), now_us, dtype=np.int64)
        return encode_users(self.encoder, histories, moments, table.embeddings)

    @torch.inference_mode()
    def score(
        self,
        histories: Sequence[History],
        candidates: Tensor,
        now_us: int,
        table: ItemTable,
        *,
        user_vectors: Tensor | None = None,
    ) -> Scores:
        """Return scores and features of each user's candidates.

        Args:
            histories: Events of each user (B entries).
            candidates: Item rows, int64 (B, C), or (C,) where all users have the same.
            now_us: Moment of the request, microseconds UTC.
            table: Values of every item.
            user_vectors: Result of ``user_vectors`` (B, D); computed here if None.
        """
        if user_vectors is None:
            user_vectors = self.user_vectors(histories, now_us, table)
        features = ranking_features(histories, candidates, now_us, table, user_vectors)
        return Scores(self.ranker(features), features)

    def contributions(self, features: Tensor) -> Tensor:
        """Return the contribution of each feature (C, F) to each candidate's logit, (C, F).

        It is the gradient times the standardised feature, which is exact for the linear part of the
        ranker and a first-order approximation of the rest.
        """
        inputs = self.ranker.standardise(features).requires_grad_()  # (C, F)
        gradient = torch.autograd.grad(self.ranker.score(inputs).sum(), inputs)[0]
        return (gradient * inputs).detach()

    def top_features(self, features: Tensor, n: int = 3) -> list[tuple[tuple[str, float], ...]]:
        """Return up to ``n`` features that raised the score of each candidate, largest first."""
        values, columns = self.contributions(features).topk(n, dim=1)
        return [
            tuple(
                (FEATURES[column], value) for column, value in zip(*pair, strict=True) if value > 0
            )
            for pair in zip(columns.tolist(), values.tolist(), strict=True)
        ]


def encode_users(
    encoder: UserEncoder,
    histories: Sequence[History],
    now_us: np.ndarray[tuple[int], np.dtype[np.int64]],
    embeddings: Tensor,
) -> Tensor:
    """Return user vectors (B, D) for the events of each history before its ``now_us`` (B,)."""
    padded = pad_histories(histories, encoder.history_length, now_us)
    device = embeddings.device
    rows = torch.as_tensor(padded.rows, device=device)
    vectors: Tensor = encoder(
        embeddings[rows],
        torch.as_tensor(padded.ages_days, device=device),
        torch.as_tensor(padded.kinds, device=device),
        torch.as_tensor(padded.mask, device=device),
    )
    return vectors
