"""Write a whole file or a whole folder, or nothing.

The functions are those of ``vision.files``; their errors are errors of this package.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import text.errors
import vision.errors
import vision.files
from recsys.errors import FileAccessError
from vision.files import flush, flush_all

__all__ = [
    "flush",
    "flush_all",
    "make_folder",
    "scratch_folder",
    "whole_file",
    "whole_folder",
    "writing",
]


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
    with _translated(), vision.files.whole_file(path) as scratch:
        yield scratch


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to fill; it gets its name on success, and is removed otherwise.

    Args:
        path: Path of the finished folder, which must be missing or an empty folder.

    Raises:
        FileAccessError: If the folder cannot be written.
    """
    with _translated(), vision.files.whole_folder(path) as scratch:
        yield scratch


@contextmanager
def scratch_folder(path: Path, *, about: Path | None = None) -> Iterator[Path]:
    """Yield a new hidden folder beside a path, on the same disk, which is removed at the end.

    Args:
        path: Path of a finished file or folder, whose own folder is made if needed.
        about: Path that errors name; None is the same path.

    Raises:
        FileAccessError: If the folder, or a file in it, cannot be written.
    """
    with _translated(), vision.files.scratch_folder(path, about=about) as folder:
        yield folder


def make_folder(folder: Path) -> None:
    """Make a folder unless it exists, and check that files can be written to it.

    Called before long work, it refuses a place that cannot hold the results.

    Raises:
        FileAccessError: If the folder cannot be made or written to.
    """
    with _translated():
        vision.files.make_folder(folder)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the system about a file or folder that is written into a FileAccessError.

    Args:
        path: Path that is written. Errors about its folders, or files inside it, are about it too.

    Raises:
        FileAccessError: If the file or folder cannot be written.
    """
    with _translated(), vision.files.writing(path):
        yield


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (vision.errors.FileAccessError, text.errors.FileAccessError) as error:
        raise FileAccessError(str(error), error.path) from error.__cause__
