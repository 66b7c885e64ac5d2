"""Make expensive test data once and share it between worker processes."""

import fcntl
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

Made = TypeVar("Made")


def made_once(
    tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Made]
) -> Made:
    """Return what ``make`` returns for a folder that all worker processes share.

    The first worker that asks makes it while others wait; they get a copy of the value and the same
    folder, in which nobody writes afterwards.

    Args:
        tmp_path_factory: Factory of the session.
        name: Name of the folder and of what is made.
        make: Function of the folder, which does not exist yet.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # each worker has a folder of its own in it
    stored = root / f"{name}.pickle"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stored.exists():
            stored.write_bytes(pickle.dumps(make(root / name)))
        made: Made = pickle.loads(stored.read_bytes())
    return made
