"""Score candidates for a user: user encoder, features and ranker as one step."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recsys.data.interactions import History
from recsys.models.ranker import Ranker
from recsys.models.user_encoder import UserEncoder, pad_histories
from recsys.ranking.features import FEATURES, ItemTable, ranking_features


class Scores(NamedTuple):
    """Scores of some candidates (C,) and the features they come from (C, F)."""

    scores: Tensor
    features: Tensor


class UserRanker:
    """Ranks candidates by a user's history; offline evaluation and the service both call this.

    Args:
        encoder: From history to user vector.
        ranker: From features to logit.
    """

    def __init__(self, encoder: UserEncoder, ranker: Ranker) -> None:
        self.encoder = encoder.eval()
        self.ranker = ranker.eval()

    @torch.inference_mode()
    def user_vector(self, history: History, now_us: int, table: ItemTable) -> Tensor:
        """Return the user vector (D,) for the events before ``now_us``."""
        return encode_users(self.encoder, [history], np.array([now_us]), table.embeddings)[0]

    @torch.inference_mode()
    def score(self, history: History, candidates: Tensor, now_us: int, table: ItemTable) -> Scores:
        """Return scores (C,) and features (C, F) of candidate rows, int64 (C,)."""
        user_vector = self.user_vector(history, now_us, table)
        features = ranking_features(history, candidates, now_us, table, user_vector)
        return Scores(self.ranker(features), features)

    def contributions(self, features: Tensor) -> Tensor:
        """Return how much each feature moved each candidate's logit, (C, F).

        Gradient times the standardised feature: exact for the linear part of the ranker, a first
        order reading of the rest.
        """
        inputs = self.ranker.standardise(features).requires_grad_()  # (C, F)
        gradient = torch.autograd.grad(self.ranker.score(inputs).sum(), inputs)[0]
        return (gradient * inputs).detach()

    def top_features(self, features: Tensor, n: int = 3) -> list[tuple[tuple[str, float], ...]]:
        """Return, per candidate, up to ``n`` features that raised its score, most first."""
        values, columns = self.contributions(features).topk(n, dim=1)
        return [
            tuple(
                (FEATURES[column], value) for column, value in zip(*pair, strict=True) if value > 0
            )
            for pair in zip(columns.tolist(), values.tolist(), strict=True)
        ]


def encode_users(
    encoder: UserEncoder,
    histories: list[History],
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
