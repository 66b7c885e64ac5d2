"""Adversarial pictures: slightly changed so that the tower mistakes them, to train it on them."""

from collections.abc import Callable

import torch
from torch import Tensor

from vision.config import AdversarialConfig
from vision.transforms import Preprocess

# A step of pgd times the number of steps, over epsilon: enough to reach the border and turn back.
STEP_OVER_EPSILON = 2.5


def perturb(
    images: Tensor,
    loss_of: Callable[[Tensor], Tensor],
    config: AdversarialConfig,
    preprocess: Preprocess,
) -> Tensor:
    """Return images (B, 3, H, W) within epsilon of the given images, with a higher loss.

    FGSM (Goodfellow et al., 2015, https://arxiv.org/abs/1412.6572), or projected gradient descent
    (Madry et al., 2018, https://arxiv.org/abs/1706.06083) without its random start, so that a
    training step needs no draw. Pixels stay between black and white.

    Args:
        images: Normalised pictures (B, 3, H, W).
        loss_of: Function that returns the scalar loss of such pictures and changes no state.
        config: Method, number of steps, and epsilon in pixel values of 255.
        preprocess: Mean and std that the pictures were normalised with.
    """
    shape = (1, 3, 1, 1)
    mean = torch.tensor(preprocess.mean, device=images.device).view(shape)
    std = torch.tensor(preprocess.std, device=images.device).view(shape)
    epsilon = config.epsilon / 255.0 / std
    steps = config.steps if config.method == "pgd" else 1
    stride = epsilon * (1.0 if steps == 1 else STEP_OVER_EPSILON / steps)
    clean = images.detach()
    # Augmented colours are not clipped, so pixels may lie outside already; they are left there.
    lowest = torch.minimum(-mean / std, clean)
    highest = torch.maximum((1.0 - mean) / std, clean)
    changed = clean
    for _ in range(steps):
        changed = changed.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss_of(changed), changed)
        moved = changed.detach() + stride * gradient.sign()
        within = torch.minimum(torch.maximum(moved, clean - epsilon), clean + epsilon)
        changed = torch.minimum(torch.maximum(within, lowest), highest)
    return changed.detach()
