"""Find the bundle that a path names, and record which of several bundles is the latest."""

import os
import shutil
from pathlib import Path, PureWindowsPath

from recsys.bundle.manifest import MANIFEST, bundle_version
from recsys.data.files import flush, scratch_folder
from recsys.errors import BundleError

LATEST = "latest"
MAX_CHARACTERS = 1_000  # of a text file, which is far more than a path has


def find_bundle(path: Path) -> Path:
    """Return the folder of the bundle that a path names.

    The path is that of a bundle, of a folder of bundles, or of its ``latest``. Training writes
    ``latest`` as a link. A copy may have made of it a folder (links were followed) or a text file
    with the name (no links there), or dropped it, which is clear where there is one bundle.

    Raises:
        BundleError: If the path leads to no bundle, or to several without a ``latest``.
    """
    if path.name == LATEST and os.path.lexists(path) and not _holds_bundles(path):
        return _follow(path)
    if (path / MANIFEST).is_file():
        return path.resolve()
    if not path.is_dir():
        raise BundleError(f"bundle must be a folder, got {path}; train one with `recsys train`")
    if os.path.lexists(path / LATEST):
        return _follow(path / LATEST)
    return _only_bundle(path)


def _holds_bundles(path: Path) -> bool:
    """Return whether a path is a folder of bundles, which may itself be called ``latest``."""
    return path.is_dir() and (os.path.lexists(path / LATEST) or bool(_bundles(path)))


def _follow(latest: Path) -> Path:
    """Return the bundle that a ``latest`` stands for, be it a link, a folder or a text file."""
    root = latest.parent
    if latest.is_dir():
        if not (latest / MANIFEST).is_file():
            # A copy into a folder of this name; or an archive that made the link an empty folder.
            return _only_bundle(latest if _bundles(latest) else root)
        original = root / bundle_version(latest)
        return (original if (original / MANIFEST).is_file() else latest).resolve()
    text = os.readlink(latest) if latest.is_symlink() else _read_name(latest)
    # The last part alone: a link may be absolute and from another machine, or from Windows.
    name = PureWindowsPath(text.strip()).name
    if not name or not (root / name / MANIFEST).is_file():
        got = f"{text.strip()!r}, which is not there" if text.strip() else "nothing"
        raise BundleError(
            f"{latest} must name a bundle in {root}, got {got}; copy the one that it should name "
            f"again, or {_advice(root)}"
        )
    return (root / name).resolve()


def _read_name(latest: Path) -> str:
    with latest.open(encoding="utf-8-sig", errors="replace") as file:
        return file.read(MAX_CHARACTERS)


def _only_bundle(folder: Path) -> Path:
    bundles = _bundles(folder)
    if len(bundles) == 1:
        return bundles[0].resolve()
    wanted = f"a `{LATEST}` beside its {len(bundles)} bundles" if bundles else "a bundle"
    raise BundleError(f"{folder} must hold {wanted}, found none; {_advice(folder)}")


def _bundles(folder: Path) -> list[Path]:
    """Return the bundles in a folder; hidden folders are still being written."""
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return [path for path in inside if path.name != LATEST and (path / MANIFEST).is_file()]


def _advice(folder: Path) -> str:
    bundles = _bundles(folder)
    if not bundles:
        return "train one with `recsys train`"
    return f"open one of them: {', '.join(map(str, bundles[:3]))}"


def point_to(bundle: Path) -> None:
    """Make a bundle the latest of its folder, in one step where ``latest`` is not a folder."""
    latest = bundle.with_name(LATEST)
    with scratch_folder(latest, about=bundle.parent) as folder:
        scratch = folder / LATEST
        try:
            scratch.symlink_to(bundle.name)
        except OSError:  # a file system without links
            scratch.write_text(f"{bundle.name}\n", encoding="utf-8")
        if latest.is_dir() and not latest.is_symlink():  # a copy made it one
            shutil.rmtree(latest)
        scratch.replace(latest)
        flush(bundle.parent)
