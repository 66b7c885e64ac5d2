"""Pool the token vectors of a text into one vector; padding is left out."""

from collections.abc import Callable

import torch
from torch import Tensor

from text.errors import InvalidArgumentError


def pool_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over real tokens (B, F)."""
    weights = mask.unsqueeze(-1).to(tokens.dtype)  # (B, T, 1)
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)


def pool_mean_sqrt_len(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the sum over real tokens, divided by the square root of their number (B, F)."""
    weights = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0).sqrt()


def pool_cls(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the first token (B, F)."""
    return tokens[:, 0]


def pool_max(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the largest value of each feature over real tokens (B, F)."""
    return tokens.masked_fill(~mask.bool().unsqueeze(-1), -torch.inf).amax(dim=1)


def pool_lasttoken(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the last real token (B, F); padding must be on the right."""
    last = mask.sum(dim=1).long().clamp(min=1) - 1
    return tokens[torch.arange(len(tokens), device=tokens.device), last]


# The names that sentence-transformers checkpoints use.
POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": pool_mean,
    "mean_sqrt_len_tokens": pool_mean_sqrt_len,
    "cls": pool_cls,
    "max": pool_max,
    "lasttoken": pool_lasttoken,
}


def pool(tokens: Tensor, mask: Tensor, mode: str) -> Tensor:
    """Return one vector per text (B, F).

    Args:
        tokens: Token vectors (B, T, F).
        mask: 1 at a real token, 0 at padding on the right (B, T).
        mode: A name in ``POOLINGS``.

    Raises:
        InvalidArgumentError: If the shapes disagree or the mode is unknown.
    """
    if mask.shape != tokens.shape[:2]:
        raise InvalidArgumentError(
            f"mask must have shape {tuple(tokens.shape[:2])} to match tokens, "
            f"got {tuple(mask.shape)}"
        )
    if mode not in POOLINGS:
        raise InvalidArgumentError(f"pooling must be one of {', '.join(POOLINGS)}, got {mode!r}")
    return POOLINGS[mode](tokens, mask)
