"""Write a whole file or a whole folder, or nothing."""

import os
import shutil
import tempfile
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
            flush_folder(scratch)
            if path.exists():
                path.rmdir()
            scratch.rename(path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def make_folder(folder: Path) -> None:
    """Make a folder unless it exists, and check that files can be written to it.

    Called before long work, it refuses a place that cannot hold the results.

    Raises:
        FileAccessError: If the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _refusal(folder, error) from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the system about a file or folder that is written into a FileAccessError.

    Args:
        path: Path that is written. Errors about its folders, or files inside it, are about it too.

    Raises:
        FileAccessError: If the file or folder cannot be written.
    """
    try:
        yield
    except FileAccessError:
        raise
    except OSError as error:
        place = None if error.filename is None else Path(error.filename)
        if place is not None and not _is_about(place, path):
            raise
        # Only a folder that cannot be made is missing; a missing file is a defect of the writer.
        if isinstance(error, FileNotFoundError) and place not in path.parents:
            raise
        raise _refusal(path, error) from error


def _refusal(path: Path, error: OSError) -> FileAccessError:
    return FileAccessError(
        f"{path} cannot be written ({error.strerror or error}); choose another place, or make "
        "room and give access there"
    )


def _is_about(place: Path, path: Path) -> bool:
    """Return whether a place is the path, one of its folders, or inside it or its scratch."""
    prefix = f".{path.name}."
    scratch = any(one.name.startswith(prefix) for one in (place, *place.parents))
    return scratch or place == path or place in path.parents or path in place.parents


def _scratch(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid4().hex}")


def flush_folder(folder: Path) -> None:
    """Wait until the content of every file in a folder is on the disk."""
    for file in folder.rglob("*"):
        if file.is_file():
            _flush(file)


def _flush(path: Path) -> None:
    """Wait until the content of a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
