"""Published files: unpack them safely and collect the pictures that their lists name."""

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
    """The published files, unpacked.

    Args:
        folder: Where they are.
        ours: Whether they were unpacked for this import, and may be moved away.
    """

    folder: Path
    ours: bool

    def find(self, name: str) -> Path | None:
        """Return the file that a published list names, None if it is not there.

        Raises:
            DataError: If the name leads out of the folder.
        """
        rule = broken_rule(name, self.folder.resolve(), None)
        if rule == "image|inside_root":
            raise DataError(f"files of {self.folder} must lie inside it, its lists name {name!r}")
        return self.folder / name if rule is None else None


@contextmanager
def unpacked(
    src: Path, marker: str, *, scratch: Path, progress: Progress | None
) -> Iterator[Original]:
    """Yield the folder that holds ``marker``: of a folder, or of a tar archive, plain or packed.

    Args:
        src: The folder or the archive; the marker may be one folder deeper.
        marker: A file that tells the published layout.
        scratch: Where an archive is unpacked; nothing of it stays there.
        progress: Told after each file that was unpacked.

    Raises:
        DataError: If ``src`` is neither, is damaged, tries to write elsewhere, or lacks the marker.
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
        # The file's own position tells how far a packed archive has come, in bytes.
        with src.open("rb") as file, tarfile.open(fileobj=file) as archive:
            size = src.stat().st_size
            for member in archive:
                # This filter refuses paths and links that lead out of the target.
                archive.extract(member, target, filter="data")
                if progress is not None:
                    progress("unpacking", file.tell(), size)
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
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
    """Bring pictures to the same relative paths below ``folder`` and return those that are missing.

    Files keep their time of change, so that a data set imported twice has one fingerprint.

    Args:
        original: Where they are.
        names: Paths relative to the original's folder.
        folder: Where they go.
        progress: Told after each picture.
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
