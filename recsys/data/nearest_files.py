"""The existing file that a wrong path in a table probably means."""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from threading import Lock
from urllib.parse import unquote

MAX_LISTED = 1_000_000  # files that are looked through for a name in another folder

_Names = dict[str, list[str]]  # names by a key that similar ones share


class NearestFiles:
    """Finds files under a folder by almost their path.

    A path is near a file if it differs in case, kind of slash, Unicode form, percent-encoding or
    surrounding blanks, if it has folders or a URL before it or a query (``?v=2``) after it, or if
    the file lies in another folder or has another suffix. Folders are listed when they are first
    needed, and only once. Several threads may ask at the same time.

    Args:
        root: Folder of the files, with links resolved. Files outside it are never named.
        max_listed: Largest number of files that are looked through for a name in any folder.
    """

    def __init__(self, root: Path, *, max_listed: int = MAX_LISTED) -> None:
        self._root, self._max_listed = str(root), max_listed
        self._folders: dict[str, _Folder] = {}
        self._access = Lock()

    def find(self, name: str) -> str | None:
        """Return the path of the one file that is nearest, relative to the root; None without one.

        Args:
            name: Path that names no file, as the table has it.
        """
        paths = [parts for reading in _readings(name) if (parts := _parts(reading))]
        tails = [parts[start:] for parts in paths for start in range(len(parts))]
        with self._access:
            return (
                _first(self._walk(tail) for tail in tails)
                or _first(self._anywhere.get(_key(parts[-1])) for parts in paths)
                or _first(self._walk(tail, any_suffix=True) for tail in tails)
            )

    def _walk(self, parts: list[str], *, any_suffix: bool = False) -> str | None:
        """Return the path whose parts are nearest to these, part by part from the root."""
        path = ""
        for part in parts[:-1]:
            folder = _nearest(self._list(path).folders, part)
            if folder is None:
                return None
            path = os.path.join(path, folder)
        names, last = self._list(path), parts[-1]
        file = _only(names.stems.get(_stem(last))) if any_suffix else _nearest(names.files, last)
        return None if file is None else os.path.join(path, file)

    def _list(self, path: str) -> "_Folder":
        if path not in self._folders:
            self._folders[path] = _Folder(_entries(self._root, path))
        return self._folders[path]

    @cached_property
    def _anywhere(self) -> dict[str, str | None]:
        """The path of every file by the key of its name, None where several share it."""
        found: dict[str, str | None] = {}
        folders, left = [""], self._max_listed
        while folders and left > 0:
            path = folders.pop()
            for entry, is_folder in _entries(self._root, path):
                left -= 1
                if not is_folder:
                    key = _key(entry.name)
                    found[key] = None if key in found else os.path.join(path, entry.name)
                elif not entry.is_symlink():  # links can form a circle
                    folders.append(os.path.join(path, entry.name))
        return found


class _Folder:
    """Names of the files and folders in a folder, by their keys."""

    def __init__(self, entries: Iterable[tuple["os.DirEntry[str]", bool]]) -> None:
        self.folders: _Names = {}
        self.files: _Names = {}
        for entry, is_folder in entries:
            names = self.folders if is_folder else self.files
            names.setdefault(_key(entry.name), []).append(entry.name)

    @cached_property
    def stems(self) -> _Names:
        """Names of the files by the key of the name without its suffix."""
        stems: _Names = {}
        for names in self.files.values():
            for name in names:
                stems.setdefault(_stem(name), []).append(name)
        return stems


def same_path(one: str, other: str) -> bool:
    """Return whether two paths are one, written in different forms of Unicode."""
    return unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)


def _entries(root: str, path: str) -> Iterator[tuple["os.DirEntry[str]", bool]]:
    """Yield the files and folders in a folder, and which are folders; no links out of the root."""
    try:
        with os.scandir(os.path.join(root, path)) as entries:
            for entry in entries:
                if not entry.is_symlink() or Path(os.path.realpath(entry)).is_relative_to(root):
                    if entry.is_dir():
                        yield entry, True
                    elif entry.is_file():
                        yield entry, False
    except OSError:  # a folder that cannot be read helps nobody
        return


def _readings(name: str) -> Iterable[str]:
    """Return what a path may have meant: as it stands, decoded, and without a query."""
    plain = name.strip().replace("\\", "/")
    cut = re.split("[?#]", plain, maxsplit=1)[0]
    return dict.fromkeys([plain, unquote(plain), cut, unquote(cut)])


def _parts(path: str) -> list[str]:
    """Return the parts of a path after the last ``..``, without empty ones."""
    parts = [part.strip() for part in path.split("/")]
    after = len(parts) - parts[::-1].index("..") if ".." in parts else 0
    return [part for part in parts[after:] if part not in ("", ".")]


def _key(name: str) -> str:
    """Return a text that names share if they differ in case, Unicode form or blanks only."""
    return unicodedata.normalize("NFC", name.strip()).casefold()


def _stem(name: str) -> str:
    """Return the key of a name without its suffix."""
    return _key(os.path.splitext(name.strip())[0])


def _nearest(names: _Names, name: str) -> str | None:
    """Return the name itself, its only other Unicode form, or the only similar name."""
    near = names.get(_key(name), [])
    exact = [one for one in near if one == name] or [one for one in near if same_path(one, name)]
    return _only(exact or near)


def _only(names: list[str] | None) -> str | None:
    return names[0] if names and len(names) == 1 else None


def _first(found: Iterable[str | None]) -> str | None:
    return next((one for one in found if one is not None), None)
