"""What tells that a file has changed though it kept its name, as build tools do."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from vision.config import VisionConfig
from vision.networks.weights import find_package


def file_state(path: Path) -> str:
    """Return the size of a file and its time of change; copies that keep the time have the same."""
    try:
        status = path.stat()
    except OSError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


def hash_states(paths: Iterable[Path], root: Path | None = None) -> str:
    """Return a digest of the names and states of files.

    Args:
        paths: Files, relative to root where root is given.
        root: Folder of the files.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path} {file_state((root or Path()) / path)}\n".encode())
    return digest.hexdigest()


def hash_weights(config: VisionConfig) -> str:
    """Return a digest of the files that a backbone's weights and settings are read from.

    A hub id counts by its name, which the configuration has. A package with published weights
    counts by their hash.

    Args:
        config: Result of ``decide_start``.
    """
    named = [config.backbone.removeprefix("transformers/"), config.pretrained]
    found = [Path(name).expanduser() for name in named if isinstance(name, str)]
    files = [path for one in found for path in sorted([one, *one.rglob("*")]) if path.is_file()]
    package = find_package(config.backbone) if config.pretrained is True else None
    return hash_states(files) + ("" if package is None else package[0].requirement)
