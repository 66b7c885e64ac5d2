"""Run a stage once: keep its folder, and skip it while its inputs are the same."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DONE = "done.json"
KEY_LENGTH = 12  # hexadecimal digits


@dataclass(frozen=True)
class Stage:
    """A finished stage.

    Args:
        name: What it did.
        folder: What it left.
        key: Hash of its inputs; goes into the inputs of the stages that read it.
        seconds: How long it took when it ran.
        skipped: Whether an earlier run had done it.
    """

    name: str
    folder: Path
    key: str
    seconds: float
    skipped: bool


def hash_files(path: bool | str | None) -> str:
    """Return a hash of a local file, or of all files of a folder; empty for what is neither.

    A name of weights that stays the same does not tell that other weights are there now.
    """
    local = Path(path).expanduser() if isinstance(path, str) else None
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

    An interrupted stage keeps its folder, so that its checkpoint is found when it runs again.

    Args:
        root: Made if needed.
        announce: Told the name of a stage before it runs, for whoever shows progress.
    """

    def __init__(self, root: Path, *, announce: Callable[[str], None]) -> None:
        self.root = root
        self.stages: list[Stage] = []
        self._announce = announce

    def run(self, name: str, inputs: Mapping[str, Any], action: Callable[[Path], None]) -> Stage:
        """Return the stage, run now or found done.

        Args:
            name: A plain word.
            inputs: All that the result depends on, as JSON values.
            action: Fills the folder it is given.
        """
        text = json.dumps(inputs, sort_keys=True)
        key = hashlib.sha256(f"{name} {text}".encode()).hexdigest()[:KEY_LENGTH]
        folder = self.root / f"{name}-{key}"
        done = folder / DONE
        skipped = done.exists()
        if not skipped:
            self._announce(name)
            folder.mkdir(parents=True, exist_ok=True)
            start = time.perf_counter()
            action(folder)
            seconds = time.perf_counter() - start
            done.write_text(json.dumps({"seconds": seconds, "inputs": inputs}, indent=1))
        seconds = float(json.loads(done.read_text())["seconds"])
        stage = Stage(name, folder, key, seconds, skipped)
        self.stages.append(stage)
        return stage
