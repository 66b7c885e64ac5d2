"""Separate the valid rows of a table from the bad ones, which are kept with the reason."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import dataframely as dy
import polars as pl

from recsys.data.coercion import refused
from recsys.data.files import whole_file, writing
from recsys.data.tables import reading
from recsys.errors import DataError, InvalidArgumentError
from recsys.schema import (
    EARLIEST_EVENT,
    LATEST_ITEM,
    MAX_AMOUNT,
    MAX_ID_CHARACTERS,
    MAX_PARTS,
    MAX_TEXT_CHARACTERS,
)

ROW = "row"  # column with the row's number in its table, from 1
# A rule is named "column|rule", or "rule" if it is about the whole row.
_WANTED = {
    "nullability": "must not be empty",
    "inner_nullability": "must not have empty parts",
    "inner_inner_key_nullability": "must not have empty names",
    "inner_inner_value_nullability": "must not have empty values",
    "min_length": "must not be empty",
    "min": "must not be negative",
    "value|min": f"must be at least -{MAX_AMOUNT:,.0f}",
    "timestamp|min": f"must lie after {EARLIEST_EVENT.year - 1}, the year of a wrong time unit",
    "max": f"must be a number of at most {MAX_AMOUNT:,.0f}",
    "max_exclusive": f"must lie before {LATEST_ITEM.year}; leave it empty where it is unknown",
    "max_length": f"must have at most {MAX_PARTS} parts",
    "check__id_length": f"must have at most {MAX_ID_CHARACTERS:,} characters",
    "check__text_length": f"must have at most {MAX_TEXT_CHARACTERS:,} characters",
    "check__printable": "must not contain control characters",
    "unreadable": "must be readable as the column's type",
    "check__known": "must be train, val or test",
    "known": "must be a valid row of the items table",
    "not_future": "must not lie in the future",
    "inside_root": "must stay inside the images root",
    "exists": "must be an existing file",
    "decodes": "must be a picture that can be decoded",
    "item_id_is_unique": "item_id must not repeat an earlier row's",
    "embeddable": "must have words or a picture that the bundle has a tower for",
}


def explain(rule: str) -> str:
    """Return what a rule demands, as a sentence.

    Raises:
        InvalidArgumentError: If the rule is unknown.
    """
    column, _, name = rule.rpartition("|")
    wanted = _WANTED.get(rule, _WANTED.get(name))
    if wanted is None:
        raise InvalidArgumentError(f"rule must be one of {sorted(_WANTED)}, got {rule!r}")
    return f"{column} {wanted}".strip()


@dataclass(frozen=True)
class TableReport:
    """The outcome of validating one table.

    Args:
        table: Name of the table, such as "items".
        n_rows: Number of rows in the table.
        n_valid: Number of rows that are used.
        failures: One row per broken rule of each bad row: ``rule``, ``row`` (from 1), ``got`` (the
            bad cell as text), ``reason`` (what is wrong with a picture, null for other rules), then
            the canonical columns. An item whose only fault is its picture is listed here, and used
            without the picture.
    """

    table: str
    n_rows: int
    n_valid: int
    failures: pl.DataFrame

    def counts(self) -> dict[str, int]:
        """Return the number of rows that broke each rule, most first."""
        counts = self.failures.group_by("rule").len().sort("len", "rule", descending=[True, False])
        return dict(counts.iter_rows())

    def lines(self) -> list[str]:
        """Return the counts as sentences, each with the first reason where a rule has reasons."""
        return [
            f"{self.table}: {count} of {self.n_rows} rows: {explain(rule)}" + self._example(rule)
            for rule, count in self.counts().items()
        ]

    def _example(self, rule: str) -> str:
        """Return a bad cell and what is wrong with it, and how many rows have such a reason."""
        rows = self.failures.filter(rule=rule).drop_nulls("reason")
        if rows.is_empty():
            return ""
        got, reason = rows.select("got", "reason").row(0)
        return f"; {len(rows)} like {got!r}: {reason}"


@dataclass(frozen=True)
class Quarantine:
    """Reports on all tables that were loaded."""

    reports: tuple[TableReport, ...]

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of rows that broke each rule, by table."""
        return {report.table: report.counts() for report in self.reports}

    def lines(self) -> list[str]:
        """Return the counts of all tables as sentences."""
        return [line for report in self.reports for line in report.lines()]

    def write(self, folder: Path) -> list[Path]:
        """Write the failures of each table that has any to ``folder/<table>.parquet``.

        Raises:
            FileAccessError: If a file cannot be written.
        """
        paths = []
        for report in self.reports:
            path = folder / f"{report.table}.parquet"
            with writing(path):
                path.unlink(missing_ok=True)  # left by an earlier run
            if len(report.failures):
                with whole_file(path) as scratch:
                    report.failures.write_parquet(scratch)
                paths.append(path)
        return paths

    def require_empty(self) -> None:
        """Raise if any row broke a rule.

        Raises:
            DataError: If a row broke a rule; lists the rules and the numbers of rows.
        """
        if lines := self.lines():
            raise DataError("every row must be valid, got\n  " + "\n  ".join(lines))


class Loaded(NamedTuple):
    """The valid rows of a table, and the report on the bad rows."""

    frame: pl.DataFrame
    report: TableReport


def validate(
    frame: pl.LazyFrame, schema: type[dy.Schema], *, table: str, rules: Mapping[str, pl.Expr]
) -> Loaded:
    """Read a coerced table and return its valid rows, numbered by ROW, and a report on the others.

    Runs on the streaming engine, so that memory holds the answer and not the files.

    Args:
        frame: Result of ``recsys.data.coercion.coerce``.
        schema: Schema of ``recsys.schema`` whose column rules apply.
        table: Name of the table in the report.
        rules: Rules over the rows, by name; each is true or null where a row is valid.

    Raises:
        DataError: If the files are damaged, or hold no row.
    """
    columns = schema.column_names()
    every = _column_rules(schema) | dict(rules)
    checked = frame.with_row_index(ROW, offset=1).with_columns(
        valid.fill_null(True).alias(name) for name, valid in every.items()
    )
    is_valid = pl.all_horizontal(list(every))
    with reading(table):
        # Without what was refused, which is null in every valid row.
        parts = [checked.filter(is_valid).select(ROW, *columns), checked.filter(~is_valid)]
        valid, bad = pl.collect_all(parts, engine="streaming")
    n_rows = len(valid) + len(bad)
    if not n_rows:
        raise DataError(f"table {table} must hold rows, got none")
    return Loaded(valid, TableReport(table, n_rows, len(valid), _failures(bad, every, columns)))


def _column_rules(schema: type[dy.Schema]) -> dict[str, pl.Expr]:
    """Return the rules of each column and that it could be read, named "column|rule"."""
    rules = {
        f"{name}|{rule}": valid
        for name, column in schema.columns().items()
        for rule, valid in column.validation_rules(pl.col(name)).items()
    }
    return rules | {
        f"{name}|unreadable": pl.col(refused(name)).is_null() for name in schema.columns()
    }


def _failures(bad: pl.DataFrame, rules: Iterable[str], columns: list[str]) -> pl.DataFrame:
    """Return one row per bad row and rule that it breaks, in row order.

    Args:
        bad: Coerced bad rows, with a column for each rule that says whether it holds.
        rules: Names of the rules.
        columns: Names of the schema's columns.
    """
    frames = [_failures_of(bad.clear(), "", columns)]
    for rule in rules:
        column, _, name = rule.rpartition("|")
        broken = bad.filter(~pl.col(rule))
        if name == "nullability":  # what could not be read is null for that reason alone
            broken = broken.filter(pl.col(refused(column)).is_null())
        frames.append(_failures_of(broken, rule, columns))
    return pl.concat(frames).sort(ROW, maintain_order=True)


def _failures_of(rows: pl.DataFrame, rule: str, columns: list[str]) -> pl.DataFrame:
    column = rule.rpartition("|")[0] or "item_id"
    got = pl.col(refused(column))
    if not rows.schema[column].is_nested():
        got = got.fill_null(pl.col(column).cast(pl.String))
    reason = pl.lit(None, pl.String).alias("reason")
    return rows.select(pl.lit(rule).alias("rule"), ROW, got.alias("got"), reason, *columns)
