"""Where training curves go: nowhere, a CSV file, TensorBoard or Weights & Biases."""

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
    """Yield the writer of a run's curves, None if they are not wanted; then close it.

    CSV and TensorBoard files are in ``NAME/version_0`` of the folder, those of a run that goes on
    in ``version_1`` and so on; W&B's are in ``wandb``.

    Args:
        config: Which writer.
        workdir: Folder of the curves where the configuration names none.
        name: Name of the run, such as ``finetune`` or ``fold-3``.

    Raises:
        MissingExtraError: If the writer is not installed.
        TrainingError: If W&B is to be online and no one is logged in.
    """
    openers: dict[str, Callable[[], AbstractContextManager[Logger | None]]] = {
        "none": lambda: contextlib.nullcontext(None),
        "csv": lambda: contextlib.nullcontext(CSVLogger(folder, name)),
        "tensorboard": lambda: contextlib.nullcontext(_build_tensorboard(folder, name)),
        "wandb": lambda: _open_wandb(config, folder, name),
    }
    folder = workdir if config.folder is None else Path(config.folder)
    # Of several processes that train together, the first writes for all.
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
    """Yield a logger of one W&B run, which neither asks nor prints, and finish the run."""
    try:
        import wandb
    except ImportError as error:
        raise MissingExtraError(
            "logger = \"wandb\" needs it: pip install 'vitrine-recsys[wandb]'"
        ) from error
    with contextlib.ExitStack() as cleanup:
        # W&B's own process is stopped where it was not running; children would find it by this.
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
            # The caller's own run, if there is one, goes on beside this.
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
        # As a context manager, the run would print the exception.
        cleanup.push(lambda kind, error, trace: run.finish(exit_code=0 if kind is None else 1))
        # What Lightning does for a run that it opens itself; but then it sets WANDB_MODE for good.
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        yield WandbLogger(experiment=run)
