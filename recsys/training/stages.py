"""Run each stage of training once, and skip it while its inputs are the same."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import nn

from recsys.data.files import flush, make_folder, whole_file, writing
from vision.device import Device
from vision.squares import ReadSquare, read_square
from vision.training.run import TrainingRun

logger = logging.getLogger(__name__)

STAGES = ".stages"  # folder beside the bundles; the next run makes again what is deleted
DONE, CHECKPOINTS = "done.json", "checkpoints"  # in the folder of a stage
KEY_LENGTH = 12  # hexadecimal digits

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Stage:
    """A finished stage.

    Args:
        name: Name of the stage, as the program prints it.
        folder: Folder with its results.
        key: Hash of its inputs, for the inputs of the stages that read its results.
        seconds: Duration of the stage, in the run that executed it.
        skipped: Whether an earlier run executed it.
    """

    name: str
    folder: Path
    key: str
    seconds: float
    skipped: bool


class Trained(NamedTuple, Generic[Network]):
    """A network that a stage trained, and the key of the stage."""

    network: Network
    key: str


def hash_files(path: bool | str | None) -> str:
    """Return a hash of a local file, or of all files in a folder; an empty string otherwise.

    Weights can change while their name stays the same, so a stage that reads them depends on this
    hash as well as on the name.
    """
    local = Path(os.path.expanduser(path)) if isinstance(path, str) else None
    if local is None or not local.exists():
        return ""
    digest = hashlib.sha256()
    files = sorted(one for one in local.rglob("*") if one.is_file()) if local.is_dir() else [local]
    for file in files:
        digest.update(f"{file.relative_to(local)}\n".encode())
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


class Workspace:
    """Folders of stages under one root, each named by its stage and the hash of its inputs.

    An interrupted stage keeps its folder, and finds its checkpoint there when it runs again. A
    finished one runs again if a file of its results is missing or has another size.

    Args:
        root: Folder of the stages; created by the first stage.
        announce: Called with the name of each stage before it runs.
    """

    def __init__(self, root: Path, *, announce: Callable[[str], None]) -> None:
        self.root = root
        self.stages: list[Stage] = []
        self._announce = announce

    def run(self, name: str, inputs: Mapping[str, Any], action: Callable[[Path], None]) -> Stage:
        """Return the stage: executed now, or by an earlier run with the same inputs.

        Args:
            name: Name of the stage, a plain word.
            inputs: Everything that the result depends on, as JSON values.
            action: Function that writes the results into the folder it is called with.

        Raises:
            FileAccessError: If a result cannot be written.
        """
        text = json.dumps(inputs, sort_keys=True)
        key = hashlib.sha256(f"{name} {text}".encode()).hexdigest()[:KEY_LENGTH]
        folder = self.root / f"{name}-{key}"
        found = _read_done(folder)
        seconds = self._execute(name, folder, inputs, action) if found is None else found
        stage = Stage(name, folder, key, seconds, skipped=found is not None)
        self.stages.append(stage)
        return stage

    def _execute(
        self, name: str, folder: Path, inputs: Mapping[str, Any], action: Callable[[Path], None]
    ) -> float:
        """Run a stage, record its results once they are whole, and return its seconds."""
        self._announce(name)
        make_folder(folder)
        (folder / DONE).unlink(missing_ok=True)
        start = time.perf_counter()
        with writing(folder):
            action(folder)
            sizes = _sizes(folder)
            for file in sizes:
                flush(folder / file)
        seconds = time.perf_counter() - start
        record = {"seconds": seconds, "inputs": inputs, "files": sizes}
        with whole_file(folder / DONE) as path:
            path.write_text(json.dumps(record, indent=1))
        return seconds


def _read_done(folder: Path) -> float | None:
    """Return the duration of a finished stage; None if it has to run."""
    done = folder / DONE
    if not done.exists():
        return None
    try:
        record = json.loads(done.read_text())
        seconds, files = float(record["seconds"]), dict(record.get("files", {}))
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("the stage runs again: %s is damaged (%r)", done, error)
        return None
    found = _sizes(folder)
    for file, size in files.items():
        if found.get(file) != size:
            got = "it is missing" if file not in found else f"got {found[file]}"
            logger.warning(
                "the stage runs again: %s must have %s bytes, %s", folder / file, size, got
            )
            return None
    return seconds


def _sizes(folder: Path) -> dict[str, int]:
    """Return the size in bytes of each file of a stage's results, by path in the folder."""
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {
        file.as_posix(): (folder / file).stat().st_size
        for file in files
        if file.parts[0] not in {DONE, CHECKPOINTS}
    }


@dataclass(frozen=True)
class Runtime:
    """How the stages of one training run are executed.

    Args:
        workspace: Folder of the stages.
        device: Device of the networks.
        seed: Random seed of every stage.
        progress: Whether to show progress bars.
        read: Reader of picture files, which may keep pixels from one stage to the next.
    """

    workspace: Workspace
    device: Device
    seed: int = 0
    progress: bool = False
    read: ReadSquare = read_square

    def training_run(self, folder: Path, device: Device | None = None) -> TrainingRun:
        """Return where a stage's network trains.

        Args:
            folder: Folder of the stage; checkpoints are kept in it, too.
            device: Device to train on; None is that of the other networks.
        """
        chosen = torch.device(device or self.device)
        return TrainingRun(folder / CHECKPOINTS, self.seed, chosen, self.progress)
