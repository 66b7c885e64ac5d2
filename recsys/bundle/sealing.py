"""Seal a folder under the hash of its contents, and detect every later change."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recsys.data.files import flush_folder, writing
from recsys.errors import BundleError

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FORMAT = 1  # raised when older releases would misread a folder; lower formats are still read
VERSION_LENGTH = 16  # hexadecimal digits of the manifest's SHA-256


@contextmanager
def sealed_folder(root: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it becomes ``root/<version>``, or is removed on an error.

    The folder gets its final name when it is complete. ``latest`` then returns it.

    Args:
        root: Folder of the sealed folders; made if needed.

    Raises:
        FileAccessError: If a file cannot be written.
    """
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".unsealed-", dir=root))
        try:
            yield scratch
            text = _manifest_text(scratch)
            (scratch / MANIFEST).write_text(text)
            _move(scratch, root / _version(text))
            _point(root / "latest", _version(text))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _move(scratch: Path, final: Path) -> None:
    """Give a filled folder its final name, unless the same contents are there and whole."""
    if final.exists():
        try:
            verify(final)
        except BundleError as error:
            logger.warning("replacing a damaged bundle: %s", error)
            shutil.rmtree(final)
        else:
            return
    flush_folder(scratch)
    scratch.chmod(0o755)  # mkdtemp makes it readable by its owner only
    scratch.rename(final)


def latest(root: Path) -> Path:
    """Return the folder under ``root`` that was sealed last.

    Raises:
        BundleError: If the folder does not hold a bundle.
    """
    link = root / "latest"
    if not link.exists():
        raise BundleError(f"{root} must hold a bundle, found none; train one with `recsys train`")
    return link.resolve()


def verify(folder: Path) -> str:
    """Return the version of a sealed folder after checking every byte of it.

    Raises:
        BundleError: If the folder is not a bundle, has a newer format, or differs from its
            manifest.
    """
    text = _read_manifest(folder)
    version = _version(text)
    if folder.resolve().name != version:
        raise BundleError(
            f"bundle {folder} must be named by its manifest's hash {version}; "
            "its manifest was changed or the folder renamed: copy the original again"
        )
    wanted = _parse_manifest(folder, text)
    found = _hashes(folder)
    for kind, names in (
        ("is missing", wanted.keys() - found.keys()),
        ("was added to", found.keys() - wanted.keys()),
        ("was changed in", {name for name in wanted.keys() & found if wanted[name] != found[name]}),
    ):
        if names:
            raise BundleError(
                f"file {sorted(names)[0]} {kind} bundle {folder}; copy the original bundle again"
            )
    return version


def _read_manifest(folder: Path) -> str:
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(f"{folder} must be a bundle, but has no {MANIFEST}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"{path} is damaged: {error}") from error


def _parse_manifest(folder: Path, text: str) -> dict[str, str]:
    try:
        manifest: dict[str, Any] = json.loads(text)
        form, files = int(manifest["format"]), dict(manifest["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{folder / MANIFEST} is damaged: {error!r}") from error
    if form > FORMAT:
        raise BundleError(
            f"bundle {folder} has format {form}, this release reads up to {FORMAT}; upgrade"
        )
    return files


def _manifest_text(folder: Path) -> str:
    return json.dumps({"format": FORMAT, "files": _hashes(folder)}, indent=1, sort_keys=True)


def _version(manifest_text: str) -> str:
    return hashlib.sha256(manifest_text.encode()).hexdigest()[:VERSION_LENGTH]


def _hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in ``folder`` except the manifest, by relative path."""
    hashes = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise BundleError(f"a bundle must hold plain files, {name} in {folder} is a link")
        if path.is_file() and name != MANIFEST:
            with path.open("rb") as file:
                hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def _point(link: Path, target: str) -> None:
    """Point a relative symbolic link at ``target`` in one step."""
    scratch = link.with_name(f".{link.name}-{os.getpid()}")
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(target)
    scratch.replace(link)
