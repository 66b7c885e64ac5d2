"""How the side of training pictures grows over a run."""

from vision.config import VisionConfig

GROWING_SHARE = 0.7
STEP = 16  # pixels


def training_size(epoch: int, config: VisionConfig) -> int:
    """Return the side of training pictures in an epoch, in pixels."""
    full = config.train_size or config.size
    return grown_size(epoch, start=config.start_size, full=full, epochs=config.epochs)


def grown_size(epoch: int, *, start: int | None, full: int, epochs: int) -> int:
    """Return the side of pictures in an epoch, in pixels, as it grows from ``start`` to ``full``.

    Progressive learning (Tan and Le, 2021, https://arxiv.org/abs/2104.00298), without their growing
    regularisation: the side grows linearly, in steps of 16 pixels, over the first 70 % of the run.

    Args:
        epoch: Number of the epoch, from 0.
        start: Side in the first epoch; None keeps the full side throughout.
        full: Side after the growth.
        epochs: Number of epochs in the whole run.
    """
    if start is None:
        return full
    grown = min(1.0, epoch / (GROWING_SHARE * epochs))
    side = start + (full - start) * grown
    return full if grown == 1.0 else min(full, round(side / STEP) * STEP)
