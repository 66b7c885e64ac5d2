"""Seal a folder under the hash of its contents."""

import errno
import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from recsys.bundle.finding import point_to
from recsys.bundle.manifest import MANIFEST, manifest_text, text_version, verify
from recsys.data.files import flush_folder, writing
from recsys.errors import BundleError

logger = logging.getLogger(__name__)


def seal(root: Path, fill: Callable[[Path], None]) -> Path:
    """Return ``root/<version>`` with what ``fill`` wrote; it is the latest bundle of ``root``.

    The folder gets its final name when it is complete. Several processes may seal at once.

    Args:
        root: Folder of the sealed folders; made if needed.
        fill: Function that writes the files into the empty folder that it is called with.

    Raises:
        FileAccessError: If a file cannot be written.
    """
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".unsealed-", dir=root))
        try:
            fill(scratch)
            text = manifest_text(scratch)
            (scratch / MANIFEST).write_bytes(text.encode())
            bundle = root / text_version(text)
            _move(scratch, bundle)
            point_to(bundle)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return bundle


def _move(scratch: Path, final: Path) -> None:
    """Give a filled folder its final name, unless the same contents are there and whole."""
    if final.exists():
        if _is_whole(final):
            return
        shutil.rmtree(final)
    flush_folder(scratch)
    scratch.chmod(0o755)  # mkdtemp makes it readable by its owner only
    try:
        scratch.rename(final)
    except OSError as error:
        # Another process may have sealed the same contents in the meantime.
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST} or not _is_whole(final):
            raise


def _is_whole(bundle: Path) -> bool:
    try:
        verify(bundle)
    except BundleError as error:
        logger.warning("the bundle is written again: %s", error)
        return False
    return True
