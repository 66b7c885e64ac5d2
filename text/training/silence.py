"""Keeps messages and advice of Lightning out of the caller's log."""

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's messages about the hardware, and warnings that do not apply here.

    Batches come from memory in one indexing operation, so that worker processes would only copy
    them. Validation is optional. The folder of the checkpoints is not empty when a run is resumed.
    Curves have one point for each epoch, even if an epoch has few batches.
    """
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*num_workers.*", UserWarning)
            warnings.filterwarnings("ignore", ".*no `val_dataloader`.*", UserWarning)
            warnings.filterwarnings("ignore", "Checkpoint directory .* exists", UserWarning)
            warnings.filterwarnings("ignore", ".*the logging interval.*", UserWarning)
            # Lightning 2.6 uses a part of torch's pytree that torch 2.14 deprecates.
            warnings.filterwarnings("ignore", ".*treespec, LeafSpec.*", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
