"""Files that are under their name only when they are whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield where to write a file; it gets its name on success, and is removed otherwise.

    Several machines may write the same file at the same moment: each has a place of its own.

    Args:
        path: Where the file is to be; its folder is made if needed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        yield scratch
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
