"""The folder of a bulk run: a manifest of its inputs, and the parts of its output."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from recsys.data.files import whole_file
from recsys.errors import DataError, InvalidArgumentError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Shard:
    """Share of one of ``count`` machines: part ``index``, and every ``count``-th part after it.

    Args:
        index: Number of the machine, from 0.
        count: Number of machines.

    Raises:
        InvalidArgumentError: If the index is not from 0 to count - 1.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise InvalidArgumentError(
                "shard must be i/n with i from 0 to n - 1, such as 0/4, "
                f"got {self.index}/{self.count}"
            )

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Return the shard that ``i/n`` names.

        Raises:
            InvalidArgumentError: If the text does not name a shard.
        """
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal()):
            raise InvalidArgumentError(f"shard must be i/n, such as 0/4, got {text!r}")
        return cls(int(index), int(count))


WHOLE = Shard(0, 1)


@dataclass(frozen=True)
class Parts:
    """Paths of the parts of one table; part ``n`` has the rows from ``n * rows_per_part`` on.

    Args:
        folder: Folder that contains the parts and nothing else.
        rows_per_part: Rows of the table in a part; the last part may have fewer.
        n_rows: Number of rows of the table.
    """

    folder: Path
    rows_per_part: int
    n_rows: int

    @property
    def table(self) -> Path:
        """Copy of the table from which parts are made; removed when all parts are done."""
        return self.folder / "table.parquet"

    def output(self, part: int) -> Path:
        """Return the file with what was made of a part, which is done when the file exists."""
        return self.folder / f"part-{part:05}.parquet"

    def quarantine(self, part: int) -> Path:
        """Return the file with a part's failures, which exists if the part has any."""
        return self.folder / f"quarantine-{part:05}.parquet"

    def of(self, shard: Shard) -> range:
        """Return the numbers of a shard's parts."""
        return range(shard.index, -(-self.n_rows // self.rows_per_part), shard.count)

    def missing(self, shard: Shard = WHOLE) -> list[int]:
        """Return the numbers of a shard's parts that are not done."""
        return [part for part in self.of(shard) if not self.output(part).exists()]

    def count_rows(self, part: int) -> int:
        """Return the number of rows of the table in a part."""
        return min(self.rows_per_part, self.n_rows - part * self.rows_per_part)


class Job(Protocol):
    """Everything that a worker on a machine with the same files needs to make any part."""

    @property
    def parts(self) -> Parts:
        """Paths of the parts."""

    @property
    def device(self) -> str:
        """Device that the networks run on."""

    def build(self) -> Callable[[int], None]:
        """Return a function that makes the part of a given number, with everything loaded."""


def find_parts(folder: Path, inputs: Mapping[str, Any], rows_per_part: int) -> Parts | None:
    """Return the parts that an earlier run began in a folder, None if the folder is new.

    Args:
        folder: Folder of the parts.
        inputs: Everything that decides what the parts hold, as JSON values.
        rows_per_part: Rows of the table in a part, which is one of the inputs.

    Raises:
        DataError: If the run had other inputs, or the folder has parts and no manifest.
    """
    path = folder / MANIFEST
    if not path.exists():
        if any(folder.glob("part-*.parquet")):
            raise DataError(f"out must be empty or of an earlier run, {folder} has no {MANIFEST}")
        return None
    try:
        begun = json.loads(path.read_text("utf-8"))
        n_rows = int(begun.pop("n_rows"))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error!r}); delete {folder} and run again") from error
    wanted = {**inputs, "rows_per_part": rows_per_part}
    different = [
        f"{name} {begun.get(name)!r}, not {value!r}"
        for name, value in wanted.items()
        if begun.get(name) != value
    ]
    if different:
        raise DataError(
            f"{folder} was begun with {'; '.join(different)}; "
            "delete it, or write to another place with --out"
        )
    return Parts(folder, rows_per_part, n_rows)


def begin_parts(folder: Path, inputs: Mapping[str, Any], rows_per_part: int, n_rows: int) -> Parts:
    """Write the manifest of a folder and return its parts, which are all still to be made."""
    manifest = {**inputs, "rows_per_part": rows_per_part, "n_rows": n_rows}
    with whole_file(folder / MANIFEST) as scratch:
        scratch.write_text(json.dumps(manifest, indent=1), "utf-8")
    return Parts(folder, rows_per_part, n_rows)
