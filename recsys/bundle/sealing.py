"""Seal a folder under the hash of its contents."""

import errno
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from recsys.bundle.finding import point_to
from recsys.bundle.manifest import MANIFEST, manifest_text, text_version, verify
from recsys.data.files import flush, flush_all, scratch_folder
from recsys.errors import BundleError

logger = logging.getLogger(__name__)

SCRATCH = "bundle"


def seal(root: Path, fill: Callable[[Path], None], *, latest: bool = True) -> Path:
    """Return ``root/<version>`` with what ``fill`` wrote.

    The folder gets its final name when it is complete. Several processes may seal at once.

    Args:
        root: Folder of the sealed folders; made if needed.
        fill: Function that writes the files into the empty folder that it is called with.
        latest: Whether it becomes the latest bundle of ``root``.

    Raises:
        FileAccessError: If a file cannot be written.
    """
    with scratch_folder(root / SCRATCH, about=root) as scratch:
        folder = scratch / SCRATCH
        folder.mkdir()
        fill(folder)
        text = manifest_text(folder)
        (folder / MANIFEST).write_text(text)
        bundle = root / text_version(text)
        _move(folder, bundle)
        if latest:
            point_to(bundle)
    return bundle


def _move(folder: Path, final: Path) -> None:
    """Give a filled folder its final name, unless the same contents are there and whole."""
    if final.exists():
        if _is_whole(final):
            return
        shutil.rmtree(final)
    flush_all(folder)
    try:
        folder.rename(final)
    except OSError as error:
        # Another process may have sealed the same contents in the meantime.
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST} or not _is_whole(final):
            raise
    flush(final.parent)


def _is_whole(bundle: Path) -> bool:
    try:
        verify(bundle)
    except BundleError as error:
        logger.warning("the bundle is written again: %s", error)
        return False
    return True
