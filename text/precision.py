"""Where bfloat16 arithmetic makes the training of texts faster."""

from typing import Literal

import torch

Precision = Literal["auto", "32-true", "bf16-mixed"]
Resolved = Literal["32-true", "bf16-mixed"]


def resolve_precision(precision: Precision, device: torch.device) -> Resolved:
    """Return the precision to compute in on this device; ``auto`` is decided, others are kept.

    ``auto`` is bf16-mixed on CUDA cards that multiply bfloat16 directly (Ampere and later), else
    32-true: the short, narrow products of titles gain nothing from a processor's bfloat16 units.
    """
    if precision != "auto":
        return precision
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if fast else "32-true"
