"""Published data sets as the configurations expect them, imported once into the cache folder."""

import os
from pathlib import Path

from recsys.data.sources.registry import import_source

CACHE = Path("~/.cache/recsys").expanduser()


def data_folder() -> Path:
    """Return the folder of the published files: ``$RECSYS_DATA``, else ``../shared/data``."""
    return Path(os.environ.get("RECSYS_DATA", "../shared/data"))


def imported(source: str, file: str) -> Path:
    """Return the folder of a source's tables, importing them if they are not there yet.

    Args:
        source: A name that ``recsys import`` takes.
        file: The published file, inside the data folder.

    Raises:
        DataError: If the published file cannot be read.
    """
    out = CACHE / source
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        import_source(source, data_folder() / file, out)
    return out
