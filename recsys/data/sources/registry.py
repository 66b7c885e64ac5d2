"""Importers by name: published data sets, and a folder of pictures."""

from pathlib import Path
from typing import Protocol

from recsys.data.progress import Progress
from recsys.data.sources.amazon_beauty import import_amazon_beauty
from recsys.data.sources.folder import import_folder
from recsys.data.sources.grocery_store import import_grocery_store
from recsys.data.sources.myntra import import_myntra
from recsys.data.sources.online_retail import import_online_retail
from recsys.data.sources.staging import Imported
from recsys.errors import InvalidArgumentError


class Importer(Protocol):
    """Function that writes a data set as canonical tables."""

    def __call__(self, src: Path, out: Path, *, progress: Progress | None = None) -> Imported:
        """Read ``src`` as published, make the folder ``out``, and return its tables."""


SOURCES: dict[str, Importer] = {
    "grocery-store": import_grocery_store,
    "online-retail": import_online_retail,
    "myntra": import_myntra,
    "amazon-beauty": import_amazon_beauty,
    "folder": import_folder,
}


def import_source(name: str, src: Path, out: Path, *, progress: Progress | None = None) -> Imported:
    """Write a data set as canonical tables and return their paths.

    Args:
        name: Name of the data set, a key of ``SOURCES``.
        src: File or folder of the data set.
        out: Folder to make.
        progress: Function called with the work, the steps that are done, and their number.

    Raises:
        DataError: If ``src`` does not have the layout of the data set.
        InvalidArgumentError: If the source is unknown, or ``out`` is in use.
    """
    if name not in SOURCES:
        raise InvalidArgumentError(
            f"source must be one of {', '.join(sorted(SOURCES))}, got {name!r}"
        )
    return SOURCES[name](src, out, progress=progress)
