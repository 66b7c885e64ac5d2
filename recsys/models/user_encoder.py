"""Encode a user's history as a vector of the item space."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.config import UserConfig
from recsys.data.interactions import MICROSECONDS_PER_DAY, History, Ints

# Time scales on which a past event may fade, from one hour to three years.
DECAYS_DAYS = (1 / 24, 1.0, 7.0, 30.0, 90.0, 365.0, 1095.0)
START_DECAY_DAYS = 90.0
VISIT_DAYS = 1 / 24  # events about this close to the latest one are the same visit


class PaddedHistories(NamedTuple):
    """Histories as rectangular arrays (B, L), padding first, the latest event last.

    Args:
        rows: Item rows, int64; 0 on padding, which ``mask`` tells from item 0.
        ages_days: Age of each event at the moment of the request, float32.
        kinds: Kind codes, int64.
        mask: True where there is an event.
    """

    rows: Ints
    ages_days: NDArray[np.float32]
    kinds: Ints
    mask: NDArray[np.bool_]


def pad_histories(histories: Sequence[History], length: int, now_us: Ints) -> PaddedHistories:
    """Return the last ``length`` events of each history before its moment, (B, length).

    Args:
        histories: One per user, oldest first (B entries).
        length: Events kept L.
        now_us: The moment of each request, microseconds UTC (B,); events at or after it are left
            out.

    Raises:
        ValueError: If there is not one moment per history.
    """
    if now_us.shape != (len(histories),):
        raise ValueError(
            f"now_us must have one moment per history, shape ({len(histories)},), "
            f"got {now_us.shape}"
        )
    padded = PaddedHistories(
        rows=np.zeros((len(histories), length), dtype=np.int64),
        ages_days=np.zeros((len(histories), length), dtype=np.float32),
        kinds=np.zeros((len(histories), length), dtype=np.int64),
        mask=np.zeros((len(histories), length), dtype=np.bool_),
    )
    for i, (history, now) in enumerate(zip(histories, now_us, strict=True)):
        end = int(np.searchsorted(history.timestamps_us, now, side="left"))
        start = max(0, end - length)
        kept = slice(length - (end - start), length)
        padded.rows[i, kept] = history.item_rows[start:end]
        padded.kinds[i, kept] = history.kinds[start:end]
        padded.ages_days[i, kept] = (now - history.timestamps_us[start:end]) / MICROSECONDS_PER_DAY
        padded.mask[i, kept] = True
    return padded


class DecayedMean(nn.Module):
    """Weighted mean of item embeddings whose weights fade with age at learned rates.

    An event's weight is the importance of its kind times a positive mixture of exponential decays.
    It starts as one decay of ``START_DECAY_DAYS`` and equal kinds: a usual content profile.

    Args:
        n_kinds: Event kinds.
    """

    decays_days: Tensor

    def __init__(self, n_kinds: int) -> None:
        super().__init__()
        self.register_buffer("decays_days", torch.tensor(DECAYS_DAYS), persistent=False)
        start = [0.0 if days == START_DECAY_DAYS else -1.5 for days in DECAYS_DAYS]
        # The last entry never fades: it keeps the weights of a very old history above zero.
        self.log_mixture = nn.Parameter(torch.tensor([*start, -3.0]))
        self.log_importance = nn.Embedding(n_kinds, 1)
        nn.init.zeros_(self.log_importance.weight)

    def forward(self, items: Tensor, ages_days: Tensor, kinds: Tensor, mask: Tensor) -> Tensor:
        """Return (B, D) for the arguments of :meth:`UserEncoder.forward`; no events give zeros."""
        fading = torch.exp(-ages_days[..., None] / self.decays_days)  # (B, L, decays)
        fading = F.pad(fading, (0, 1), value=1.0)
        weights = (fading * self.log_mixture.softmax(dim=0)).sum(dim=-1)  # (B, L)
        weights = weights * self.log_importance(kinds).squeeze(-1).exp()
        return _weighted_mean(items, weights.masked_fill(~mask, 0.0))


class UserEncoder(nn.Module):
    """User vector from the embeddings, ages and kinds of the last events.

    A decayed mean of the item embeddings, bent by a linear map, plus a correction that a
    transformer reads from the latest events. It starts as the decayed mean, already a fair profile,
    so that a shop with few events is not worse off.

    The transformer is that of SASRec (Kang and McAuley, 2018, https://arxiv.org/abs/1808.09781)
    with four differences: items enter by content and never by id, so that new items work at once;
    an event has its age at the moment of the request in place of a position, so that a pause is
    seen; all events see each other; and it is read at a summary of the latest visit, not at the
    last event, so that the items of one basket have no order.

    Args:
        dim: Size D of item embeddings and user vectors.
        n_kinds: Event kinds.
        width: Width of the transformer.
        heads: Attention heads; divides ``width``.
        depth: Transformer layers.
        history_length: Events L that the mean reads; callers pass that many.
        recent_length: Events that the transformer reads, at most ``history_length``.
        dropout: Of the transformer.

    Raises:
        ValueError: If ``heads`` does not divide ``width``.
    """

    def __init__(
        self,
        dim: int,
        *,
        n_kinds: int,
        width: int = 64,
        heads: int = 4,
        depth: int = 1,
        history_length: int = 100,
        recent_length: int = 20,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width must be a multiple of heads ({heads}), got {width}")
        self.dim = dim
        self.history_length = history_length
        self.recent_length = recent_length
        self.profile = DecayedMean(n_kinds)
        self.bend = nn.Linear(dim, dim, bias=False)
        self.project = nn.Linear(dim, width)
        self.kind = nn.Embedding(n_kinds, width)
        self.age = nn.Linear(len(DECAYS_DAYS), width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(
            layer, depth, norm=nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.correct = nn.Linear(width, dim, bias=False)
        self.newcomer = nn.Parameter(torch.randn(dim) / dim**0.5)
        for part in (self.bend, self.correct):
            nn.init.zeros_(part.weight)  # starts as the profile, exactly

    def forward(self, items: Tensor, ages_days: Tensor, kinds: Tensor, mask: Tensor) -> Tensor:
        """Return unit-length user vectors (B, D), to be compared with items by dot product.

        A user without events gets the learned vector of newcomers. The arguments are as
        :func:`pad_histories` makes them: padding first, the latest event last.

        Args:
            items: Item embeddings (B, L, D).
            ages_days: Age of each event now (B, L), at least 0.
            kinds: Kind codes, int64 (B, L).
            mask: True where there is an event, bool (B, L); the rest is ignored.

        Raises:
            ValueError: If the shapes disagree.
        """
        if items.shape[2:] != (self.dim,) or not (
            items.shape[:2] == ages_days.shape == kinds.shape == mask.shape
        ):
            raise ValueError(
                f"items must be (B, L, {self.dim}), ages_days, kinds and mask (B, L), got "
                f"{tuple(items.shape)}, {tuple(ages_days.shape)}, {tuple(kinds.shape)} and "
                f"{tuple(mask.shape)}"
            )
        profile = self.profile(items, ages_days, kinds, mask)
        last = slice(-self.recent_length, None)
        read = self._read(items[:, last], ages_days[:, last], kinds[:, last], mask[:, last])
        vectors = profile + self.bend(profile) + self.correct(read)
        known = mask.any(dim=1, keepdim=True)
        return F.normalize(torch.where(known, vectors, self.newcomer.to(vectors.dtype)), dim=1)

    def _read(self, items: Tensor, ages_days: Tensor, kinds: Tensor, mask: Tensor) -> Tensor:
        """Return the transformer's output at the summary of the latest visit (B, width)."""
        fading = torch.exp(-ages_days[..., None] / self.profile.decays_days)
        tokens = self.project(items) + self.kind(kinds) + self.age(fading)  # (B, L, width)
        latest = ages_days.masked_fill(~mask, torch.inf).amin(dim=1, keepdim=True)
        weights = torch.exp((latest - ages_days) / VISIT_DAYS).masked_fill(~mask, 0.0)
        visit = _weighted_mean(tokens, weights)
        encoded: Tensor = self.transformer(
            torch.cat([visit[:, None], tokens], dim=1),  # (B, 1 + L, width)
            src_key_padding_mask=F.pad(~mask, (1, 0), value=False),
        )
        return encoded[:, 0]


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the mean over L of (B, L, D) by weights (B, L); zeros where all weights are zero."""
    total = weights.sum(dim=1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    return torch.einsum("bl,bld->bd", weights / total, values)


def build_user_encoder(config: UserConfig, *, dim: int, n_kinds: int) -> UserEncoder:
    """Return an untrained encoder for item embeddings of size ``dim``."""
    return UserEncoder(
        dim,
        n_kinds=n_kinds,
        width=config.width,
        heads=config.heads,
        depth=config.depth,
        history_length=config.history_length,
        recent_length=config.recent_length,
        dropout=config.dropout,
    )
