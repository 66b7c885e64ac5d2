"""Unpack published files safely, and collect the pictures that their lists name."""

import logging
import lzma
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from recsys.data.pictures import broken_rule
from recsys.data.progress import Progress
from recsys.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Original:
    """Published files in a folder.

    Args:
        folder: Folder of the files.
        ours: Whether the files were unpacked for this import, and may be moved away.
    """

    folder: Path
    ours: bool

    def find(self, name: str) -> Path | None:
        """Return the file that a published list names, None if it is missing.

        Raises:
            DataError: If the name leads out of the folder.
        """
        rule = broken_rule(name, self.folder.resolve())
        if rule == "image|inside_root":
            raise DataError(f"files of {self.folder} must lie inside it, its lists name {name!r}")
        return self.folder / name if rule is None else None


@contextmanager
def unpacked(
    src: Path, marker: str, *, scratch: Path, progress: Progress | None
) -> Iterator[Original]:
    """Yield the folder that contains ``marker``, in a folder or in a tar archive.

    Args:
        src: Folder, or tar archive, which may be compressed. The marker may be one folder deeper.
        marker: File by which the published layout is recognised.
        scratch: Folder in which an archive is unpacked, and removed again at the end.
        progress: Function called after each file that was unpacked.

    Raises:
        DataError: If ``src`` is something else, is damaged, writes elsewhere, or lacks the marker.
    """
    if src.is_dir():
        yield Original(_folder_of(src, marker, src), ours=False)
        return
    target = Path(tempfile.mkdtemp(prefix="unpacked-", dir=scratch))
    try:
        _extract(src, target, progress)
        yield Original(_folder_of(target, marker, src), ours=True)
    finally:
        shutil.rmtree(target)


def _extract(src: Path, target: Path, progress: Progress | None) -> None:
    try:
        # The position in the file is the progress through a compressed archive, in bytes.
        with src.open("rb") as file, tarfile.open(fileobj=file) as archive:
            size = src.stat().st_size
            for member in archive:
                # This filter refuses paths and links that lead out of the target.
                archive.extract(member, target, filter="data")
                if progress is not None:
                    progress("unpacking", file.tell(), size)
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        # An error with a number is of the system: a file that is unpacked cannot be written.
        if isinstance(error, OSError) and error.errno and error.filename != str(src):
            raise
        raise DataError(
            f"src must be a folder or a tar archive, got {src} ({error}); download it again"
        ) from error


def _folder_of(root: Path, marker: str, src: Path) -> Path:
    for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        if (folder / marker).is_file():
            return folder
    raise DataError(f"{src} must hold {marker!r}, as published, at its top or one folder deeper")


def collect_pictures(
    original: Original, names: Iterable[str], folder: Path, *, progress: Progress | None
) -> set[str]:
    """Copy or move pictures to the same relative paths in ``folder`` and return the missing names.

    Files keep their time of change, so a data set that is imported twice has the same fingerprint.

    Args:
        original: Published files.
        names: Paths of the pictures, relative to the folder of ``original``.
        folder: Folder to put the pictures in.
        progress: Function called after each picture.
    """
    names = list(names)
    missing = set()
    for done, name in enumerate(names, start=1):
        source, target = original.find(name), folder / name
        if source is None:
            missing.add(name)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            if original.ours:
                source.replace(target)
            else:
                shutil.copy2(source, target)
        if progress is not None:
            progress("pictures", done, len(names))
    if missing:
        logger.warning(
            "%d of %d pictures are not among the published files, such as %s",
            len(missing),
            len(names),
            min(missing),
        )
    return missing
