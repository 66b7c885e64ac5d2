"""Published data sets by name."""

from pathlib import Path
from typing import Protocol

from recsys.data.progress import Progress
from recsys.data.sources.amazon_beauty import import_amazon_beauty
from recsys.data.sources.grocery_store import import_grocery_store
from recsys.data.sources.myntra import import_myntra
from recsys.data.sources.online_retail import import_online_retail
from recsys.data.sources.staging import Imported
from recsys.errors import InvalidArgumentError


class Importer(Protocol):
    """Writes a published data set as canonical tables."""

    def __call__(self, src: Path, out: Path, *, progress: Progress | None = None) -> Imported:
        """Read ``src`` as published, make the folder ``out``, and say what is in it."""


SOURCES: dict[str, Importer] = {
    "grocery-store": import_grocery_store,
    "online-retail": import_online_retail,
    "myntra": import_myntra,
    "amazon-beauty": import_amazon_beauty,
}


def import_source(name: str, src: Path, out: Path, *, progress: Progress | None = None) -> Imported:
    """Write a published data set as canonical tables and return where they are.

    Args:
        name: Key of ``SOURCES``.
        src: What was downloaded.
        out: Folder to make.
        progress: Told what is being done, how much of it is done, and how much there is.

    Raises:
        DataError: If ``src`` is not the published layout.
        InvalidArgumentError: If there is no such source, or ``out`` is in use.
    """
    if name not in SOURCES:
        raise InvalidArgumentError(
            f"source must be one of {', '.join(sorted(SOURCES))}, got {name!r}"
        )
    return SOURCES[name](src, out, progress=progress)
