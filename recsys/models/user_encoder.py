"""Encode a user's history as a vector of the item space."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.config import UserConfig
from recsys.data.arrays import Ints
from recsys.data.interactions import MICROSECONDS_PER_DAY, History
from recsys.errors import InvalidArgumentError
from recsys.models.taste import DECAYS_DAYS, TasteRegression

VISIT_DAYS = 1 / 24  # events about this close to the latest one are the same visit


class PaddedHistories(NamedTuple):
    """Histories as rectangular arrays (B, L), padding first and the latest event last.

    Args:
        rows: Item rows, int64; 0 on padding, which ``mask`` separates from item 0.
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
        histories: Events of each user, oldest first (B).
        length: Largest number L of events kept.
        now_us: Moment of each request, microseconds UTC (B,); events at or after it are left out.

    Raises:
        InvalidArgumentError: If the numbers of histories and moments differ.
    """
    if now_us.shape != (len(histories),):
        raise InvalidArgumentError(
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


class UserEncoderSpec(NamedTuple):
    """Sizes of a ``UserEncoder``, which a bundle keeps to build it again.

    Args:
        width: Width of the transformer.
        heads: Attention heads; divides ``width``.
        depth: Transformer layers; 0 leaves the transformer out.
        history_length: Events L that the regression reads; callers pass that many.
        recent_length: Events that the transformer reads, at most ``history_length``.
        dropout: Dropout rate inside the transformer.
    """

    width: int = 64
    heads: int = 4
    depth: int = 0
    history_length: int = 100
    recent_length: int = 20
    dropout: float = 0.1


class UserEncoder(nn.Module):
    """User vector from the embeddings, ages and kinds of the last events.

    The vector is a regression of the user's taste on the items taken, at unit length. If ``depth``
    is above 0, a transformer over the latest events adds a correction. The correction starts at
    zero: the regression is already a fair profile, and the better one for a shop with few items.

    The transformer is that of SASRec (Kang and McAuley, 2018, https://arxiv.org/abs/1808.09781)
    with four differences. Items enter by content and never by id, so that new items work at once.
    Events have their age at the moment of the request instead of a position, so that pauses are
    seen. All events attend to each other. The output is read at a summary of the latest visit, not
    at the last event, so that the items of one basket have no order.

    Args:
        dim: Size D of item embeddings and user vectors.
        n_kinds: Number of event kinds.
        spec: Sizes of the encoder.

    Raises:
        InvalidArgumentError: If ``spec.heads`` does not divide ``spec.width``.
    """

    def __init__(self, dim: int, *, n_kinds: int, spec: UserEncoderSpec) -> None:
        super().__init__()
        if spec.width % spec.heads:
            raise InvalidArgumentError(
                f"width must be a multiple of heads ({spec.heads}), got {spec.width}"
            )
        self.dim = dim
        self.spec = spec
        self.taste = TasteRegression(dim, n_kinds)
        self.newcomer = nn.Parameter(torch.randn(dim) / dim**0.5)
        self.correction = (
            RecentEvents(
                dim,
                n_kinds=n_kinds,
                width=spec.width,
                heads=spec.heads,
                depth=spec.depth,
                length=spec.recent_length,
                dropout=spec.dropout,
            )
            if spec.depth
            else None
        )

    @property
    def history_length(self) -> int:
        """Events L that callers pass for each user."""
        return self.spec.history_length

    def forward(self, items: Tensor, ages_days: Tensor, kinds: Tensor, mask: Tensor) -> Tensor:
        """Return unit-length user vectors (B, D), which score items by dot product.

        A user without events gets the learned vector of newcomers. Padding comes first and the
        latest event last, as in :func:`pad_histories`.

        Args:
            items: Item embeddings (B, L, D).
            ages_days: Age of each event now (B, L), at least 0.
            kinds: Kind codes, int64 (B, L).
            mask: True where there is an event, bool (B, L); other positions are ignored.

        Raises:
            InvalidArgumentError: If the shapes disagree.
        """
        if items.shape[2:] != (self.dim,) or not (
            items.shape[:2] == ages_days.shape == kinds.shape == mask.shape
        ):
            raise InvalidArgumentError(
                f"items must be (B, L, {self.dim}), ages_days, kinds and mask (B, L), got "
                f"{tuple(items.shape)}, {tuple(ages_days.shape)}, {tuple(kinds.shape)} and "
                f"{tuple(mask.shape)}"
            )
        vectors = F.normalize(self.taste(items, ages_days, kinds, mask), dim=1)
        if self.correction is not None:
            vectors = vectors + self.correction(items, ages_days, kinds, mask)
        known = mask.any(dim=1, keepdim=True)
        return F.normalize(torch.where(known, vectors, self.newcomer.to(vectors.dtype)), dim=1)


class RecentEvents(nn.Module):
    """A transformer over the latest events, read at a summary of the latest visit.

    Args:
        dim: Size D of item embeddings and of the output.
        n_kinds: Number of event kinds.
        width: Width of the transformer.
        heads: Attention heads; divides ``width``.
        depth: Transformer layers.
        length: Number of latest events that are read.
        dropout: Dropout rate inside the transformer.
    """

    decays_days: Tensor

    def __init__(
        self,
        dim: int,
        *,
        n_kinds: int,
        width: int,
        heads: int,
        depth: int,
        length: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.register_buffer("decays_days", torch.tensor(DECAYS_DAYS), persistent=False)
        self.length = length
        self.project = nn.Linear(dim, width)
        self.kind = nn.Embedding(n_kinds, width)
        self.age = nn.Linear(len(DECAYS_DAYS), width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(
            layer, depth, norm=nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.output = nn.Linear(width, dim, bias=False)
        nn.init.zeros_(self.output.weight)

    def forward(self, items: Tensor, ages_days: Tensor, kinds: Tensor, mask: Tensor) -> Tensor:
        """Return a correction (B, D) for the arguments of :meth:`UserEncoder.forward`."""
        last = slice(-self.length, None)
        items, ages_days, kinds, mask = (
            column[:, last] for column in (items, ages_days, kinds, mask)
        )
        fading = torch.exp(-ages_days[..., None] / self.decays_days)
        tokens = self.project(items) + self.kind(kinds) + self.age(fading)  # (B, L, width)
        latest = ages_days.masked_fill(~mask, torch.inf).amin(dim=1, keepdim=True)
        weights = torch.exp((latest - ages_days) / VISIT_DAYS).masked_fill(~mask, 0.0)
        visit = _weighted_mean(tokens, weights)
        encoded: Tensor = self.transformer(
            torch.cat([visit[:, None], tokens], dim=1),  # (B, 1 + L, width)
            src_key_padding_mask=F.pad(~mask, (1, 0), value=False),
        )
        corrected: Tensor = self.output(encoded[:, 0])
        return corrected


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the mean over L of (B, L, D) by weights (B, L); zeros where all weights are zero."""
    total = weights.sum(dim=1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    return torch.einsum("bl,bld->bd", weights / total, values)


def build_user_encoder(config: UserConfig, *, dim: int, n_kinds: int) -> UserEncoder:
    """Return an untrained encoder for item embeddings of size ``dim``.

    Raises:
        InvalidArgumentError: If ``config.heads`` does not divide ``config.width``.
    """
    spec = UserEncoderSpec(
        width=config.width,
        heads=config.heads,
        depth=config.depth,
        history_length=config.history_length,
        recent_length=config.recent_length,
        dropout=config.dropout,
    )
    return UserEncoder(dim, n_kinds=n_kinds, spec=spec)
