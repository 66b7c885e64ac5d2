"""The manifest of a bundle: the hash of every file, and the version that follows from it."""

import hashlib
import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from recsys.errors import BundleError

MANIFEST = "manifest.json"
FORMAT = 1  # raised when older releases would misread a folder; lower formats are still read
VERSION_LENGTH = 16  # hexadecimal digits of the manifest's SHA-256
# What desktops, editors, copying tools and object stores leave in a folder: hidden files, backups
# and a few known names. No part of a bundle is read from a file of such a name. Any other file
# that was added could be: transformers, for one, looks for optional files beside its weights.
FOREIGN = (".*", "*~", "*.bak", "thumbs.db", "ehthumbs*.db", "desktop.ini", "*_$folder$", "@eadir")
_MEND = "copy the original bundle again, or train again"


def manifest_text(folder: Path) -> str:
    """Return the manifest of the files in a folder."""
    return json.dumps({"format": FORMAT, "files": file_hashes(folder)}, indent=1, sort_keys=True)


def bundle_version(folder: Path) -> str:
    """Return the version that a folder's manifest has, without a check of the other files.

    Raises:
        BundleError: If the folder has no manifest that can be read.
    """
    return text_version(_read(folder))


def text_version(text: str) -> str:
    """Return the version of a bundle with this manifest."""
    return hashlib.sha256(text.encode()).hexdigest()[:VERSION_LENGTH]


def verify(folder: Path, *, copied_as: str | None = None) -> str:
    """Return the version of a sealed folder after checking every byte of it.

    Hidden files, backups and what systems leave in every folder are ignored (``FOREIGN``).

    Args:
        folder: Folder of a bundle.
        copied_as: Another name than its version that the folder may have.

    Raises:
        BundleError: If the folder is not a bundle, has a newer format, or differs from its
            manifest.
    """
    text = _read(folder)
    wanted, version = _parse(folder, text), text_version(text)
    if folder.resolve().name not in {version, copied_as}:
        raise BundleError(
            f"bundle {folder} must be named by its manifest's hash {version}; rename the folder "
            "to it, or copy the original again if its manifest was changed"
        )
    found = file_hashes(folder)
    changed = {name for name in wanted.keys() & found if wanted[name] != found[name]}
    again = "copy the original bundle again"
    for names, kind, fix in (
        (wanted.keys() - found.keys(), "is missing from", again),
        (changed, "was changed in", again),
        (found.keys() - wanted.keys(), "was added to", f"remove it, or {again}"),
    ):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise BundleError(f"file {min(names)}{more} {kind} bundle {folder}; {fix}")
    return version


def _read(folder: Path) -> str:
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(f"{folder} must be a bundle, but has no {MANIFEST}; {_MEND}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"{path} is damaged ({error}); {_MEND}") from error


def _parse(folder: Path, text: str) -> dict[str, str]:
    try:
        manifest: dict[str, Any] = json.loads(text)
        form, files = int(manifest["format"]), dict(manifest["files"])
    except (ValueError, KeyError, TypeError) as error:
        what = f"{error!r}" if text.strip() else "it is empty"
        raise BundleError(f"{folder / MANIFEST} is damaged ({what}); {_MEND}") from error
    if form > FORMAT:
        raise BundleError(
            f"bundle {folder} has format {form}, this release reads up to {FORMAT}; upgrade"
        )
    return files


def file_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in ``folder`` except the manifest, by relative path."""
    hashes = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        name = inside.as_posix()
        if any(_is_foreign(part) for part in inside.parts):
            continue
        if path.is_symlink():
            raise BundleError(
                f"a bundle must hold plain files, {name} in {folder} is a link; copy the bundle "
                "with links followed (cp -rL)"
            )
        if path.is_file() and name != MANIFEST:
            with path.open("rb") as file:
                hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def _is_foreign(name: str) -> bool:
    return any(fnmatchcase(name.lower(), pattern) for pattern in FOREIGN)
