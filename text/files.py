"""Write a whole file or folder, or nothing, and name the place that cannot be written."""

import contextlib
import errno
import fcntl
import glob
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from text.errors import FileAccessError

logger = logging.getLogger(__name__)

# A scratch folder is named .NAME.<12 hexadecimal digits>, in at most 255 bytes.
NAME_BYTES = 200
SCRATCH = re.compile(r"\..+\.[0-9a-f]{12}")
LEFT_AFTER_S = 60.0  # a younger scratch folder may not have been locked yet

FULL = (errno.ENOSPC, errno.EDQUOT)
# What a write can meet and a read cannot. Libraries report it in words of their own, or say only
# that a write was short.
WRITE_ERRORS = (*FULL, errno.EROFS, errno.EFBIG)
SHORT_WRITE = re.compile(
    r"database or disk is full|\d+ requested and \d+ written|inline_container\.cc|iostream error"
    "|encoder error"
)


@contextmanager
def whole_file(path: Path, *, lasting: bool = True) -> Iterator[Path]:
    """Yield a path to write to; the file gets its name on success, and is removed otherwise.

    The content reaches the disk before the name does, so a crash leaves the old file or the new
    one. Several machines may write the same file at the same moment, each to a path of its own.

    Args:
        path: Path of the finished file. Its folder is made if needed.
        lasting: Whether to wait for the disk. A file that is checked when it is read, and can be
            made again, need not.

    Raises:
        FileAccessError: If the file cannot be written.
    """
    with scratch_folder(path) as folder:
        scratch = folder / path.name
        yield scratch
        if lasting:
            flush(scratch)
        scratch.replace(path)
        if lasting:
            flush(path.parent)


@contextmanager
def whole_files(folder: Path, *, last: str) -> Iterator[Path]:
    """Yield a folder to fill; on success its files replace those of the same names in ``folder``.

    Args:
        folder: Folder of the finished files, made if needed. Other files in it stay.
        last: File without which no reader takes anything from the folder. It is removed first and
            replaced last, so a crash leaves no mixture of old and new files that could be read.

    Raises:
        FileAccessError: If a file cannot be written.
    """
    with scratch_folder(folder / last, about=folder) as scratch:
        yield scratch
        flush_all(scratch)
        (folder / last).unlink(missing_ok=True)
        names = sorted(file.relative_to(scratch) for file in scratch.rglob("*") if file.is_file())
        for name in sorted(names, key=lambda name: name == Path(last)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (scratch / name).replace(folder / name)
        flush(folder)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to fill; it gets its name on success, and is removed otherwise.

    Args:
        path: Path of the finished folder, which must be missing or an empty folder. A mounted
            volume cannot be replaced, so what was filled is moved into it.

    Raises:
        FileAccessError: If the folder cannot be written.
    """
    mounted = path.is_mount()
    with scratch_folder(path / path.name if mounted else path, about=path) as folder:
        scratch = folder / path.name
        scratch.mkdir()
        yield scratch
        flush_all(scratch)
        if mounted:
            for inside in scratch.iterdir():
                inside.rename(path / inside.name)
        else:
            if path.exists():
                path.rmdir()
            scratch.rename(path)
        flush(path.parent)


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
        raise _refusal(folder, _Reason(error.errno, error.strerror or str(error))) from error


@contextmanager
def writing(path: Path, *, needed: int = 0) -> Iterator[None]:
    """Turn an error of the system about a file or folder that is written into a FileAccessError.

    So are errors that a library raises in words of its own, as torch and polars do on a full disk.

    Args:
        path: Path that is written. Errors about its folders, or files inside it, are about it too.
        needed: Number of bytes to be written, if known.

    Raises:
        FileAccessError: If the file or folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        own = getattr(error, "path", None)  # of a FileAccessError, of this package or another
        place = own or error.filename
        cause = error if own is None else error.__cause__
        reason = _reason_of(cause)
        if reason is None or not _is_write(error, place and Path(place), path, reason):
            raise
        raise _refusal(path, reason, needed) from cause
    except Exception as error:
        found = _reason_of(error)
        if found is None:
            raise
        raise _refusal(path, found, needed) from error


@contextmanager
def scratch_folder(path: Path, *, about: Path | None = None) -> Iterator[Path]:
    """Yield a new hidden folder beside a path, which is removed at the end.

    It is on the disk of the path, so its files can be moved to the path in one step. It is locked
    while it is in use. What a killed process left for the same path is removed first.

    Args:
        path: Path of a finished file or folder, whose own folder is made if needed.
        about: Path that errors name; None is the same path.

    Raises:
        FileAccessError: If the folder, or a file in it, cannot be written.
    """
    stem = os.fsencode(path.name)[:NAME_BYTES].decode(errors="ignore")
    folder = path.with_name(f".{stem}.{uuid4().hex[:12]}")
    try:
        with writing(about or path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(path.parent, stem)
            folder.mkdir()
            with _locked(folder):
                yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def flush_all(folder: Path) -> None:
    """Wait until everything in a folder is on the disk."""
    for path in (*folder.rglob("*"), folder):
        flush(path)


def flush(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot flush a folder, and need not.
        if error.errno not in {errno.EINVAL, errno.EBADF, errno.ENOTSUP} or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def _remove_leftovers(parent: Path, stem: str) -> None:
    """Remove the scratch folders of processes that have ended, as far as the system has locks."""
    for folder in parent.glob(f".{glob.escape(stem)}.*"):
        # A live process holds the lock, and another may remove the folder at this moment.
        with contextlib.suppress(OSError):
            is_old = time.time() - folder.stat().st_mtime > LEFT_AFTER_S
            if is_old and SCRATCH.fullmatch(folder.name):
                with _locked(folder, required=True):
                    shutil.rmtree(folder)
                logger.warning("removed %s, which an interrupted run left", folder)


@contextmanager
def _locked(folder: Path, *, required: bool = False) -> Iterator[None]:
    """Hold the lock of a folder; unless it is required, go on where the system has no locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.nullcontext() if required else contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield  # the system releases the lock when the process ends, however it ends
    finally:
        os.close(descriptor)


class _Reason(NamedTuple):
    """What the system said."""

    code: int | None
    text: str


def _reason_of(error: BaseException | None) -> _Reason | None:
    """Return what the system said, also in the words of a library; None for another error."""
    if isinstance(error, OSError) and error.strerror:
        return _Reason(error.errno, error.strerror)
    while error is not None:
        for code in WRITE_ERRORS:
            if os.strerror(code) in str(error):
                return _Reason(code, os.strerror(code))
        if SHORT_WRITE.search(str(error)):
            return _Reason(errno.ENOSPC, "the disk took only a part of it")
        error = error.__cause__ or error.__context__
    return None


def _refusal(path: Path, reason: _Reason, needed: int = 0) -> FileAccessError:
    advice = "give access there"
    text = reason.text
    if reason.code in FULL:
        there = next(one for one in (path, *path.absolute().parents) if one.exists())
        text += f", {_size(needed)} needed" if needed else ""
        text += f", {_size(shutil.disk_usage(there).free)} free"
        advice = "make room there and run again"
    return FileAccessError(
        f"{path} cannot be written ({text}); {advice}, or choose another place", path
    )


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


def _is_write(error: OSError, place: Path | None, path: Path, reason: _Reason) -> bool:
    """Return whether an error of the system is about writing a path."""
    if place is None:  # an open file
        return reason.code in {*WRITE_ERRORS, errno.EIO}
    scratch = _in_scratch(place, path)
    if hasattr(error, "path"):  # it has its message already, which may name a scratch folder
        return scratch
    if isinstance(error, FileNotFoundError) and place not in path.parents:
        return not place.parent.exists()  # it was removed; otherwise the writer forgot its file
    return scratch or place == path or place in path.parents or path in place.parents


def _in_scratch(place: Path, path: Path) -> bool:
    """Return whether a place is in a scratch folder beside or inside the path."""
    if not place.is_relative_to(path.parent):
        return False
    return any(SCRATCH.fullmatch(part) for part in place.relative_to(path.parent).parts)
