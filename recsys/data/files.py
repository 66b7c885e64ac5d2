"""Write a whole file or a whole folder, or nothing."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from recsys.errors import FileAccessError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; the file gets its name on success, and is removed otherwise.

    The content reaches the disk before the name does, so a crash leaves the old file or the new
    one. Several machines may write the same file at the same moment, each to a path of its own.

    Args:
        path: Path of the finished file. Its folder is made if needed.

    Raises:
        FileAccessError: If the file cannot be written.
    """
    scratch = _scratch(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield scratch
            _flush(scratch)
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to fill; it gets its name on success, and is removed otherwise.

    Args:
        path: Path of the finished folder, which must be missing or an empty folder.

    Raises:
        FileAccessError: If the folder cannot be written.
    """
    scratch = _scratch(path)
    with writing(path):
        scratch.mkdir(parents=True)
        try:
            yield scratch
            for file in scratch.rglob("*"):
                if file.is_file():
                    _flush(file)
            if path.exists():
                path.rmdir()
            scratch.rename(path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the system about ``path`` into a FileAccessError.

    Raises:
        FileAccessError: If the file or folder cannot be written.
    """
    try:
        yield
    # Folders are made before their files, so a missing one is a defect and keeps its traceback.
    except (FileAccessError, FileNotFoundError):
        raise
    except OSError as error:
        if error.filename is not None and not _is_ours(Path(error.filename), path):
            raise
        raise FileAccessError(
            f"{path} cannot be written ({error.strerror or error}); choose another place, or make "
            "room and give access there"
        ) from error


def _is_ours(place: Path, path: Path) -> bool:
    """Return whether a place is a path that is written, its folder, or inside its scratch."""
    prefix = f".{path.name}."
    scratch = any(one.name.startswith(prefix) for one in (place, *place.parents))
    return scratch or place == path or place in path.parents


def _scratch(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid4().hex}")


def _flush(path: Path) -> None:
    """Wait until the content of a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
