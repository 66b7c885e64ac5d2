"""Generate the results tables of README.md and of docs/ from ``benchmarks/results``.

A table stands between ``<!-- results:begin NAME -->`` and ``<!-- results:end NAME -->``::

    python -m benchmarks.tables --write    # bring the pages up to date
    python -m benchmarks.tables --check    # fail if a page is out of date
"""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.record import Result, latest
from benchmarks.table_rows import TABLES, Table
from recsys.data.files import whole_file

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_BLOCK = re.compile(r"(<!-- results:begin (\S+) -->\n).*?(<!-- results:end \2 -->)", re.DOTALL)
_MARKER = re.compile(r"<!-- results:(?:begin|end) \S+ -->")
_DIMENSIONS = ("s", "ms", "us", "GB", "MB", "kB", "B", "%")


def render(text: str, results: Mapping[str, Result]) -> str:
    """Return ``text`` with every results block filled in.

    Args:
        text: Markdown with any number of pairs of markers.
        results: Results by name.

    Raises:
        ValueError: If a marker lacks its partner or names an unknown table.
    """
    blocks = list(_BLOCK.finditer(text))
    paired = [marker for block in blocks for marker in (block[1].strip(), block[3])]
    found = _MARKER.findall(text)
    if found != paired:
        alone = sorted(set(found).difference(paired)) or found
        raise ValueError(
            f"every results:begin marker must be followed by its results:end marker, got {alone}"
        )
    unknown = [block[2] for block in blocks if block[2] not in TABLES]
    if unknown:
        raise ValueError(f"a results marker must name one of {sorted(TABLES)}, got {unknown}")
    return _BLOCK.sub(lambda block: block[1] + _table(TABLES[block[2]], results) + block[3], text)


def _table(table: Table, results: Mapping[str, Result]) -> str:
    lines = [[table.corner, *table.columns], ["---", *(["---:"] * len(table.columns))]]
    shown: list[Result] = []
    for row in table.rows:
        found = [results.get(table.cell_name(row, column)) for column in table.columns]
        shown += [result for result in found if result is not None]
        lines.append([row, *(_number(result) for result in found)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + _provenance(shown)


def _number(result: Result | None) -> str:
    if result is None:
        return "–"
    size = abs(result.value)
    unit = f" {result.unit}" if result.unit in _DIMENSIONS else ""
    if size >= 100:
        return f"{result.value:.0f}{unit}"
    if unit or size >= 10 or 0 < size < 1e-3:
        return f"{result.value:.3g}{unit}"
    return f"{result.value:.3f}"  # metrics have three decimals, so that a column lines up


def _provenance(shown: list[Result]) -> str:
    if not shown:
        return "\nNot measured yet.\n"
    days = sorted({result.at.date().isoformat() for result in shown})
    hardware = sorted({result.hardware for result in shown})
    commands = sorted({result.command for result in shown})
    again = ", ".join(f"`{command}`" for command in commands)
    when = " to ".join(dict.fromkeys((days[0], days[-1])))
    return f"\nMeasured {when} on {'; '.join(hardware)}. Again: {again}.\n"


def main() -> None:
    """Write the tables, or fail if they are out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--write", action="store_true", help="bring the pages up to date")
    choice.add_argument("--check", action="store_true", help="fail if a page is out of date")
    write: bool = parser.parse_args().write
    results = latest()
    for page in PAGES:
        text = page.read_text("utf-8")
        wanted = render(text, results)
        if write:
            with whole_file(page) as scratch:
                scratch.write_text(wanted, "utf-8")
        elif text != wanted:
            sys.exit(
                f"the tables of {page.relative_to(ROOT)} differ from benchmarks/results: "
                "run python -m benchmarks.tables --write"
            )


if __name__ == "__main__":
    main()
