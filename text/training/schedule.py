"""The optimiser of a run, and its learning rate: a linear warm-up, then a cosine to zero."""

from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer
from transformers import get_cosine_schedule_with_warmup

LARGEST_WARMUP = 0.5  # share of the steps


def build_adamw(module: nn.Module, *, learning_rate: float, weight_decay: float) -> AdamW:
    """Return AdamW without weight decay on biases, norms and other vectors.

    Args:
        module: Network to train; parameters without ``requires_grad`` are left out.
        learning_rate: Highest learning rate of the run.
        weight_decay: Weight decay of matrices.
    """
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [one for one in learned if one.ndim > 1], "weight_decay": weight_decay},
        {"params": [one for one in learned if one.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=learning_rate)


def with_schedule(optimizer: Optimizer, *, warmup_share: float, total_steps: int) -> dict[str, Any]:
    """Return the optimiser with a linear warm-up and a cosine to zero, as Lightning wants it.

    Args:
        optimizer: Optimiser with its highest learning rates.
        warmup_share: Share of the steps that warm up; a share above a half counts as a half.
        total_steps: Number of steps of the optimiser in the whole run.
    """
    warmup_steps = round(min(warmup_share, LARGEST_WARMUP) * total_steps)
    # The rate at step 0 of this schedule is 0, which would waste the first step: begin at 1.
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    schedule = get_cosine_schedule_with_warmup(
        optimizer, warmup_steps + 1, total_steps + 1, last_epoch=0
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
