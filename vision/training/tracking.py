"""Writers of training curves: to a CSV file, TensorBoard or Weights & Biases."""

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from vision.config import TrackingConfig
from vision.errors import MissingExtraError, TrainingError
from vision.training.processes import current_shard


@contextlib.contextmanager
def open_logger(config: TrackingConfig, workdir: Path, *, name: str) -> Iterator[Logger | None]:
    """Yield the writer of a run's curves, or None if no curves are configured; then close it.

    CSV and TensorBoard files are in the subfolder ``NAME/version_0``, those of a resumed run in
    ``version_1`` and so on. Files of W&B are in the subfolder ``wandb``.

    Args:
        config: Kind of writer, and its folder and project.
        workdir: Folder of the curves if the configuration has no folder.
        name: Name of the run, such as ``finetune`` or ``fold-3``.

    Raises:
        MissingExtraError: If the writer is not installed.
        TrainingError: If W&B should be online, but nobody is logged in.
    """
    openers: dict[str, Callable[[], AbstractContextManager[Logger | None]]] = {
        "none": lambda: contextlib.nullcontext(None),
        "csv": lambda: contextlib.nullcontext(CSVLogger(folder, name)),
        "tensorboard": lambda: contextlib.nullcontext(_build_tensorboard(folder, name)),
        "wandb": lambda: _open_wandb(config, folder, name),
    }
    folder = workdir if config.folder is None else Path(config.folder)
    # The first of the processes that train together writes for all of them.
    with openers[config.logger if current_shard().rank == 0 else "none"]() as logger:
        yield logger


def _build_tensorboard(folder: Path, name: str) -> Logger:
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "logger = \"tensorboard\" needs it: pip install 'vitrine-recsys[tensorboard]'"
        ) from error
    return TensorBoardLogger(folder, name, default_hp_metric=False)


@contextlib.contextmanager
def _open_wandb(config: TrackingConfig, folder: Path, name: str) -> Iterator[Logger]:
    """Yield a logger of a new W&B run, which asks nothing and prints nothing; finish the run."""
    try:
        import wandb
    except ImportError as error:
        raise MissingExtraError(
            "logger = \"wandb\" needs it: pip install 'vitrine-recsys[wandb]'"
        ) from error
    with contextlib.ExitStack() as cleanup:
        # Stop W&B's own process unless it was running before, as this variable shows.
        if "WANDB_SERVICE" not in os.environ:
            cleanup.callback(wandb.teardown)
        if not (config.offline or wandb.run or wandb.login(prompt=False, verify=False)):
            raise TrainingError(
                "offline = false needs a W&B account: run `wandb login`, or set offline = true"
            )
        folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=config.project,
            name=name,
            dir=folder,
            mode="offline" if config.offline else "online",
            # A run of the caller continues beside this one.
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
        # The run's own context manager would print the exception.
        cleanup.push(lambda kind, error, trace: run.finish(exit_code=0 if kind is None else 1))
        # Lightning does this for a run that it opens, but would also leave WANDB_MODE set.
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        yield WandbLogger(experiment=run)
