"""Score candidates for users: user encoder, features and ranker as one step."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from recsys.data.arrays import Ints
from recsys.data.interactions import History, Moment
from recsys.errors import RankingError
from recsys.models.user_encoder import UserEncoder, pad_histories
from recsys.ranking.arithmetic import exact
from recsys.ranking.calibration import UNCALIBRATED, Calibrations
from recsys.ranking.features import FEATURES, ranking_features
from recsys.ranking.item_table import ItemTable
from recsys.ranking.profiles import UserProfiles, read_profiles
from recsys.ranking.rankers import Ranker, SimpleRanker

# Users whose histories are padded to one length: the shortest together, then longer ones.
ENCODED_AT_ONCE = 16
# Candidates that are scored at once. More would not fit a processor's cache, with what a network
# computes of them.
SCORED_AT_ONCE = 4_096


class Scores(NamedTuple):
    """Scores of candidates (B, C) and the features that they come from (B, C, F)."""

    scores: Tensor
    features: Tensor


class UserRanker:
    """Ranks candidates by a user's history, in offline evaluation and in the service.

    Where a network or the trees fail, a simple recommender can be passed to rank in their place.

    Args:
        encoder: Network from a history to a user vector; put in evaluation mode, as are rankers.
        ranker: Ranker of all items.
        discovery: Ranker where items of the user's own history are left out; None takes the same.
        calibrations: What makes probabilities of the scores of both.
    """

    def __init__(
        self,
        encoder: UserEncoder,
        ranker: Ranker,
        discovery: Ranker | None = None,
        calibrations: Calibrations = UNCALIBRATED,
    ) -> None:
        self.encoder = encoder.eval()
        self._exact_encoder: UserEncoder | None = None  # a copy, made when it is needed
        self.ranker = ranker
        self.discovery = ranker if discovery is None else discovery
        self.calibrations = calibrations
        for one in (self.ranker, self.discovery):
            if isinstance(one, nn.Module):
                one.eval()

    def to(self, device: str) -> "UserRanker":
        """Move the networks to a device and return this ranker."""
        self.encoder.to(device)
        self._exact_encoder = None
        self.ranker.to(device)
        self.discovery.to(device)
        return self

    @torch.inference_mode()
    def profiles(
        self,
        histories: Sequence[History],
        now_us: Moment,
        table: ItemTable,
        *,
        simple: SimpleRanker | None = None,
    ) -> UserProfiles:
        """Return the profiles of users by the events before each one's moment.

        Args:
            histories: Events of each user (B entries).
            now_us: Moment of each request, microseconds UTC, (B,) or one for all.
            table: Values of every item.
            simple: What ranks in place of the trained ranker; the users then have vectors of zeros.

        Raises:
            RankingError: If the user encoder fails, or gives numbers that are not finite.
        """
        moments = np.broadcast_to(np.asarray(now_us, dtype=np.int64), (len(histories),)).copy()
        if simple is None:
            if self._exact_encoder is None:
                self._exact_encoder = exact(self.encoder)
            vectors = encode_users(self._exact_encoder, histories, moments, table.embeddings)
        else:
            vectors = table.embeddings.new_zeros(len(histories), table.embeddings.shape[1])
        return read_profiles(histories, moments, table, vectors)

    @torch.inference_mode()
    def score(
        self,
        profiles: UserProfiles,
        candidates: Tensor,
        table: ItemTable,
        *,
        exclude_seen: bool = False,
        simple: SimpleRanker | None = None,
    ) -> Scores:
        """Return scores and features of each user's candidates.

        Args:
            profiles: Result of ``profiles`` for B users.
            candidates: Item rows, int64 (B, C), or (C,) where all users have the same.
            table: Values of every item.
            exclude_seen: Whether the user's own items are left out of the answer, which may have a
                ranker of its own.
            simple: What ranks in place of the trained ranker.

        Raises:
            RankingError: If the ranker fails, or gives numbers that are not finite.
        """
        features = ranking_features(profiles, candidates, table)
        ranker = self._ranker(exclude_seen, simple)
        at_once = max(1, SCORED_AT_ONCE // max(1, features.shape[1]))
        with _failures("ranker"):
            scores = torch.cat([ranker(some) for some in features.split(at_once)])
        _check_finite("ranker", scores)
        return Scores(scores, features)

    @torch.inference_mode()
    def probabilities(
        self,
        scores: Tensor,
        features: Tensor,
        *,
        exclude_seen: bool = False,
        simple: SimpleRanker | None = None,
    ) -> Tensor:
        """Return how probable it is that each user takes a candidate within the window, (...).

        It is NaN for a user without events, for all where the bundle cannot say, and where
        ``simple`` ranked in place of the trained ranker.

        Args:
            scores: Scores of candidates (...), from ``score``.
            features: Features that they come from (..., F).
            exclude_seen: As it was for ``score``.
            simple: As it was for ``score``.
        """
        calibration = self.calibrations.new if exclude_seen else self.calibrations.all
        if calibration is None or simple is not None:
            return torch.full_like(scores, torch.nan, dtype=torch.float32)
        return calibration(scores, features)

    def top_features(
        self,
        features: Tensor,
        n: int = 3,
        *,
        exclude_seen: bool = False,
        simple: SimpleRanker | None = None,
    ) -> list[tuple[tuple[str, float], ...]]:
        """Return up to ``n`` features that raised the score of each candidate, largest first."""
        ranker = self._ranker(exclude_seen, simple)
        values, columns = ranker.contributions(features).topk(n, dim=1)
        return [
            tuple(
                (FEATURES[column], value) for column, value in zip(*pair, strict=True) if value > 0
            )
            for pair in zip(columns.tolist(), values.tolist(), strict=True)
        ]

    def _ranker(self, exclude_seen: bool, simple: SimpleRanker | None) -> Ranker:
        return simple or (self.discovery if exclude_seen else self.ranker)


def encode_users(
    encoder: UserEncoder, histories: Sequence[History], now_us: Ints, embeddings: Tensor
) -> Tensor:
    """Return user vectors (B, D) for the events of each history before its ``now_us`` (B,).

    They are computed in the precision of the encoder's weights and rounded once. With an encoder
    from ``recsys.ranking.arithmetic.exact`` they do not depend on who is in the batch.

    Raises:
        RankingError: If the encoder fails, or gives numbers that are not finite.
    """
    device = embeddings.device
    longest = max((len(history.item_rows) for history in histories), default=0)
    padded = pad_histories(histories, max(1, min(longest, encoder.history_length)), now_us)
    counts = padded.mask.sum(axis=1)
    vectors = embeddings.new_empty(len(histories), encoder.dim)
    dtype = next(encoder.parameters()).dtype
    order = np.argsort(counts, kind="stable")
    for start in range(0, len(order), ENCODED_AT_ONCE):
        some = order[start : start + ENCODED_AT_ONCE]
        latest = slice(-max(1, int(counts[some].max())), None)
        rows, ages_days, kinds, mask = (
            torch.as_tensor(column[some, latest], device=device) for column in padded
        )
        items = embeddings[rows].to(dtype)
        with _failures("user encoder"):
            found = encoder(items, ages_days.to(dtype), kinds, mask)
        vectors[torch.from_numpy(some).to(device)] = found.to(vectors.dtype)
    _check_finite("user encoder", vectors)
    return vectors


@contextmanager
def _failures(part: str) -> Iterator[None]:
    """Raise any error of a trained part as a ``RankingError``; what it reads was checked before."""
    try:
        yield
    except Exception as error:
        raise RankingError(
            f"the {part} must score what it was trained to score, got "
            f"{type(error).__name__}: {error}; serve an earlier bundle, or train again"
        ) from error


def _check_finite(part: str, values: Tensor) -> None:
    finite = values.isfinite()
    if not bool(finite.all()):
        raise RankingError(
            f"the {part} must give finite numbers, got {int((~finite).sum())} others out of "
            f"{values.numel()}; serve an earlier bundle, or train again"
        )
