"""Keeps Lightning's greetings and advice out of the caller's log."""

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning from logging what hardware it found, and from advice that does not apply.

    Batches come from memory in one indexing operation: worker processes would only copy them.
    Validation is optional. The checkpoint folder is not empty when a run is resumed. Curves have
    one point an epoch, however few its batches.
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
            # Lightning 2.6 calls torch 2.14's pytree in a way that is going out of use.
            warnings.filterwarnings("ignore", ".*treespec, LeafSpec.*", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
