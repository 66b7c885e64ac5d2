"""Fuse the embeddings of an item's modalities into one item embedding."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.config import FusionConfig
from recsys.errors import InvalidArgumentError


class GatedSum(nn.Module):
    """Weighted sum of modality embeddings, one weight for each modality and dimension.

    This is the gated multimodal unit (Arevalo et al., 2017, https://arxiv.org/abs/1702.01992) for
    any number of modalities. Each gate reads its own modality. A softmax over the modalities that
    are present replaces the sigmoid.

    Args:
        n_modalities: Number of modalities M.
        dim: Embedding size D.
    """

    def __init__(self, n_modalities: int, dim: int) -> None:
        super().__init__()
        self.gates = nn.ModuleList(nn.Linear(dim, dim) for _ in range(n_modalities))
        for parameter in self.gates.parameters():
            nn.init.zeros_(parameter)  # starts as the mean of what is present

    def forward(self, projected: Tensor, present: Tensor) -> Tensor:
        """Return fused embeddings (B, D).

        Args:
            projected: Modality embeddings (B, M, D), zeros where absent.
            present: Which modalities each item has, bool (B, M).
        """
        logits = torch.stack(
            [gate(projected[:, m]) for m, gate in enumerate(self.gates)], dim=1
        )  # (B, M, D)
        logits = logits.masked_fill(~present[..., None], torch.finfo(logits.dtype).min)
        return (logits.softmax(dim=1) * projected).sum(dim=1)


class ConcatLinear(nn.Module):
    """Linear map of the concatenated modality embeddings and presence flags.

    Args:
        n_modalities: Number of modalities M.
        dim: Embedding size D.
    """

    def __init__(self, n_modalities: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_modalities * dim + n_modalities, dim)

    def forward(self, projected: Tensor, present: Tensor) -> Tensor:
        """Return fused embeddings (B, D).

        Args:
            projected: Modality embeddings (B, M, D), zeros where absent.
            present: Which modalities each item has, bool (B, M).
        """
        flat = torch.cat([projected.flatten(1), present.to(projected.dtype)], dim=1)
        fused: Tensor = self.linear(flat)
        return fused


class CrossAttention(nn.Module):
    """Transformer layer over the modalities, pooled by one learned query.

    The layer (Vaswani et al., 2017, https://arxiv.org/abs/1706.03762) has one token per modality,
    and attention pools its output. A learned token replaces an absent modality, so that the others
    can see that it is absent.

    Args:
        n_modalities: Number of modalities M.
        dim: Embedding size D.
    """

    def __init__(self, n_modalities: int, dim: int) -> None:
        super().__init__()
        self.absent = nn.Parameter(torch.zeros(n_modalities, dim))
        self.kinds = nn.Parameter(torch.zeros(n_modalities, dim))
        self.query = nn.Parameter(torch.zeros(1, 1, dim))
        for tokens in (self.absent, self.kinds, self.query):
            nn.init.normal_(tokens, std=0.02)
        heads = next(heads for heads in (4, 2, 1) if dim % heads == 0)
        self.layer = nn.TransformerEncoderLayer(
            dim, heads, dim_feedforward=2 * dim, dropout=0.0, batch_first=True, norm_first=True
        )
        self.pool = nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(self, projected: Tensor, present: Tensor) -> Tensor:
        """Return fused embeddings (B, D).

        Args:
            projected: Modality embeddings (B, M, D), zeros where absent.
            present: Which modalities each item has, bool (B, M).
        """
        tokens = torch.where(present[..., None], projected, self.absent)
        tokens = self.layer(tokens + self.kinds)
        pooled: Tensor
        pooled, _ = self.pool(
            self.query.expand(len(tokens), -1, -1), tokens, tokens, need_weights=False
        )
        return pooled[:, 0]


FUSIONS: dict[str, type[GatedSum] | type[ConcatLinear] | type[CrossAttention]] = {
    "gated": GatedSum,
    "concat": ConcatLinear,
    "attention": CrossAttention,
}


class Projection(nn.Module):
    """Standardise one modality's embedding and map it to the common size.

    The map is linear plus a two-layer MLP, followed by LayerNorm. On a small catalogue most of the
    output comes from the linear part.

    Args:
        in_dim: Size D_m of the modality's embedding.
        dim: Common size D.
        hidden: Width of the MLP.
        dropout: Dropout rate of the inputs and of the MLP's hidden layer. Dropout of the inputs
            limits overfitting on a small catalogue.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, in_dim: int, dim: int, *, hidden: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(in_dim))
        self.register_buffer("deviation", torch.ones(()))
        self.linear = nn.Linear(in_dim, dim)
        self.mlp = nn.Sequential(
            nn.Linear(in_dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim)
        )
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def fit_scale(self, embeddings: Tensor) -> None:
        """Set the mean and the overall deviation to those of embeddings (n, D_m).

        All dimensions share one deviation, so that the angles between embeddings stay the same.
        """
        self.mean.copy_(embeddings.mean(dim=0))
        variance = (embeddings - self.mean).square().mean()
        self.deviation.copy_(variance.sqrt().clamp(min=1e-6))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return (B, D) for embeddings (B, D_m)."""
        scaled = self.dropout((embeddings - self.mean) / self.deviation)
        projected: Tensor = self.norm(self.linear(scaled) + self.mlp(scaled))
        return projected


class FusionSpec(NamedTuple):
    """Sizes of an ``ItemFusion``, which a bundle keeps to build it again."""

    dim: int
    hidden: int
    kind: str
    dropout: float


class ItemFusion(nn.Module):
    """Item embedding from the modalities that an item, a query or a photo has.

    Each modality is projected to one size. Those present are combined, refined by a residual MLP
    and normalised. Items and queries go through the same weights, so a text, a photo and an item
    are compared by dot product.

    Args:
        dims: Embedding sizes D_m by modality, in the order of the columns of ``present``.
        dim: Size D of the item embedding.
        hidden: Width of the projection MLPs.
        kind: A name in ``FUSIONS``.
        dropout: Dropout rate of the inputs and inside the projections.

    Raises:
        InvalidArgumentError: If ``dims`` is empty or the kind is unknown.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        dim: int,
        hidden: int = 256,
        kind: str = "gated",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if not dims:
            raise InvalidArgumentError("dims must name at least one modality, got an empty mapping")
        if kind not in FUSIONS:
            raise InvalidArgumentError(f"kind must be one of {sorted(FUSIONS)}, got {kind!r}")
        self.dims = dict(dims)
        self.dim = dim
        self.spec = FusionSpec(dim, hidden, kind, dropout)
        self.projections = nn.ModuleList(
            Projection(size, dim, hidden=hidden, dropout=dropout) for size in dims.values()
        )
        self.combine = FUSIONS[kind](len(dims), dim)
        last = nn.Linear(dim, dim)
        nn.init.zeros_(last.weight)  # the residual starts as the identity
        self.refine = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), last)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in the order of the columns of ``present``."""
        return tuple(self.dims)

    def fit_scale(self, embeddings: Mapping[str, Tensor]) -> None:
        """Fit the scale of each projection to embeddings (n_m, D_m), by modality."""
        for name, projection in zip(self.dims, self.projections, strict=True):
            if len(embeddings[name]) and isinstance(projection, Projection):
                projection.fit_scale(embeddings[name])

    def forward(self, embeddings: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Return unit-length embeddings (B, D); an item without any modality gets zeros.

        Args:
            embeddings: Embeddings by modality (B, D_m); rows of absent modalities are ignored.
            present: Which modalities each item has, bool (B, M).

        Raises:
            InvalidArgumentError: If names or shapes disagree.
        """
        self._check_shapes(embeddings, present)
        return self.fuse(self.project(embeddings, present), present)

    def project(self, embeddings: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Return each modality at the common size (B, M, D), zeros where absent.

        Args:
            embeddings: Embeddings by modality (B, D_m); a missing modality is absent.
            present: Which modalities each item has, bool (B, M).
        """
        projected = []
        for m, (name, projection) in enumerate(zip(self.dims, self.projections, strict=True)):
            if name not in embeddings:
                projected.append(torch.zeros(len(present), self.dim, device=present.device))
                continue
            absent = ~present[:, m, None]  # (B, 1)
            # Masked before as well as after: masked only after, a NaN would reach the gradients.
            rows = projection(embeddings[name].masked_fill(absent, 0.0))
            projected.append(rows.masked_fill(absent, 0.0))
        return torch.stack(projected, dim=1)

    def fuse(self, projected: Tensor, present: Tensor) -> Tensor:
        """Return unit-length embeddings (B, D) of projected modalities.

        Args:
            projected: Modalities at the common size (B, M, D), from :meth:`project`.
            present: Modalities to fuse, bool (B, M); leaving some out gives a partial view of the
                item.
        """
        projected = projected.masked_fill(~present[..., None], 0.0)
        fused = self.combine(projected, present)
        fused = F.normalize(fused + self.refine(fused), dim=1)
        return fused.masked_fill(~present.any(dim=1, keepdim=True), 0.0)

    def encode(self, embeddings: Mapping[str, Tensor]) -> Tensor:
        """Return unit-length embeddings (B, D) of rows that all have the same modalities.

        Args:
            embeddings: Embeddings by modality (B, D_m); modalities left out are absent.

        Raises:
            InvalidArgumentError: If ``embeddings`` is empty or names an unknown modality, or the
                shapes disagree.
        """
        unknown = sorted(set(embeddings) - set(self.dims))
        if unknown or not embeddings:
            raise InvalidArgumentError(
                f"embeddings must have one or more of {list(self.dims)}, got {sorted(embeddings)}"
            )
        for name, values in embeddings.items():
            if values.ndim != 2 or values.shape[1] != self.dims[name]:
                raise InvalidArgumentError(
                    f"embeddings[{name!r}] must have shape (B, {self.dims[name]}), "
                    f"got {tuple(values.shape)}"
                )
        first = next(iter(embeddings.values()))
        given = torch.tensor([name in embeddings for name in self.dims], device=first.device)
        present = given.expand(len(first), -1)
        return self.fuse(self.project(embeddings, present), present)

    def _check_shapes(self, embeddings: Mapping[str, Tensor], present: Tensor) -> None:
        if set(embeddings) != set(self.dims):
            raise InvalidArgumentError(
                f"embeddings must have the modalities {list(self.dims)}, got {sorted(embeddings)}; "
                "use encode() for rows that lack one"
            )
        n_rows = len(present)
        wanted = {name: (n_rows, size) for name, size in self.dims.items()}
        got = {name: tuple(embeddings[name].shape) for name in self.dims}
        if got != wanted or present.shape != (n_rows, len(self.dims)):
            raise InvalidArgumentError(
                f"embeddings must have shapes {wanted} for present (B, {len(self.dims)}), "
                f"got {got} and present {tuple(present.shape)}"
            )


def build_fusion(config: FusionConfig, dims: Mapping[str, int]) -> ItemFusion:
    """Return an untrained fusion of the modalities in ``dims``."""
    return ItemFusion(
        dims, dim=config.dim, hidden=config.hidden, kind=config.kind, dropout=config.dropout
    )
