"""Published data sets, imported once into the cache folder that the configurations name."""

import os
from pathlib import Path

from recsys.data.sources.registry import import_source

CACHE = Path("~/.cache/recsys").expanduser()


def data_folder() -> Path:
    """Return the folder of the published files: ``$RECSYS_DATA``, or ``../shared/data``."""
    return Path(os.environ.get("RECSYS_DATA", "../shared/data"))


def imported(source: str, file: str) -> Path:
    """Return the folder of a data set's tables, which are imported on the first call.

    Args:
        source: Name of the data set for ``recsys import``.
        file: Name of the published file in the data folder.

    Raises:
        DataError: If the published file cannot be read.
    """
    out = CACHE / source
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        import_source(source, data_folder() / file, out)
    return out
