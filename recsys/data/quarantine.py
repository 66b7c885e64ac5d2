"""Separate the valid rows of a table from the bad ones, which are kept with the reason."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import dataframely as dy
import polars as pl

from recsys.data.coercion import default_of, refused
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
    RELATION_KINDS,
)

MAX_EXAMPLE = 60  # characters of a bad cell in a sentence
ROW = "row"  # column with the row's number in its table, from 1
_NUMBER = "must be a number, and not two at once, as 1,500 is"
_TEXT = "must be text, not a list or an object"
_TIME = "must be a time in ISO 8601, such as 2026-03-01T08:30Z, or a Unix time"
# A rule is named "column|rule", or "rule" if it is about the whole row.
_WANTED = {
    "nullability": "must not be empty",
    "inner_nullability": "must not have empty parts",
    "inner_inner_key_nullability": "must not have empty names",
    "inner_inner_value_nullability": "must not have empty values",
    "min_length": "must not be empty",
    "min": "must not be negative",
    "min_exclusive": "must be above 0",
    "value|min": f"must be at least -{MAX_AMOUNT:,.0f}",
    "timestamp|min": f"must lie after {EARLIEST_EVENT.year - 1}, the year of a wrong time unit",
    "max": f"must be a number of at most {MAX_AMOUNT:,.0f}",
    "max_exclusive": f"must lie before {LATEST_ITEM.year}; leave it empty where it is unknown",
    "max_length": f"must have at most {MAX_PARTS} parts",
    "check__id_length": f"must have at most {MAX_ID_CHARACTERS:,} characters",
    "check__text_length": f"must have at most {MAX_TEXT_CHARACTERS:,} characters",
    "unreadable": "must be text without control characters, not a list or an object",
    "title|unreadable": _TEXT,
    "description|unreadable": _TEXT,
    "image|unreadable": _TEXT,
    "price|unreadable": _NUMBER,
    "quantity|unreadable": _NUMBER,
    "value|unreadable": _NUMBER,
    "weight|unreadable": _NUMBER,
    "available|unreadable": "must be true or false",
    "timestamp|unreadable": _TIME,
    "created_at|unreadable": _TIME,
    "created_at|first_event": "must not be later than the item's first event, which then counts",
    "category|unreadable": "must be 'A > B' or a JSON list of text",
    "attributes|unreadable": "must be a JSON object of names and values",
    "check__known": "must be train, val or test",
    "check__relation": f"must be one of {', '.join(RELATION_KINDS)}",
    "known": "must be a valid row of the items table",
    "spelled": "must be written as in the items table: case, leading zeros or a final .0 differ",
    "another": "must be another item than left",
    "not_future": "must not lie in the future",
    "inside_root": "must stay inside the images root",
    "exists": "must be an existing file",
    "decodes": "must be a picture that can be decoded",
    "item_id_is_unique": "item_id must not repeat an earlier row's",
    "relation_is_unique": "must be a relation that no earlier row has",
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
        failures: One row per broken rule of each row that breaks any: ``rule``, ``row`` (from 1),
            ``got`` (the bad cell as text), ``reason`` (what is wrong with a picture, null for other
            rules), ``kept``, then the canonical columns. Where ``kept`` is true, the row is used,
            and the bad cell counts as empty.
    """

    table: str
    n_rows: int
    n_valid: int
    failures: pl.DataFrame

    def used_rows(self) -> pl.Series:
        """Return the numbers of the rows that are used, from 1, in the order of the table."""
        left_out = self.failures.filter(~pl.col("kept"))[ROW].unique()
        rows = pl.int_range(1, self.n_rows + 1, eager=True).cast(left_out.dtype).alias(ROW)
        return rows.filter(~rows.is_in(left_out.implode()))

    def counts(self) -> dict[str, int]:
        """Return the number of rows that broke each rule, most first."""
        return {rule: n_rows for rule, n_rows, *_ in self._by_rule()}

    def kept(self) -> dict[str, int]:
        """Return the number of rows that are used without the cell that broke a rule, by rule."""
        return {rule: n_kept for rule, _, n_kept, *_ in self._by_rule() if n_kept}

    def lines(self) -> list[str]:
        """Return the counts as sentences, each with an example."""
        return [
            describe_rule(self.table, rule, n_rows, self.n_rows)
            + _example(*example)
            + ("" if not n_kept else f"; {_staying(n_kept, n_rows)}")
            for rule, n_rows, n_kept, *example in self._by_rule()
        ]

    def _by_rule(self) -> list[tuple[Any, ...]]:
        """Return rule, number of rows, number of kept rows, and the arguments of ``_example``."""
        # The example is a row that has a reason, if any has.
        example = pl.col(ROW, "got", "reason").sort_by(pl.col("reason").is_null()).first()
        rules = self.failures.group_by("rule", maintain_order=True).agg(
            pl.len(), pl.col("kept").sum(), pl.col("reason").count().alias("n_reasons"), example
        )
        return rules.sort("len", "rule", descending=[True, False]).rows()


def describe_rule(table: str, rule: str, n_broken: int, n_rows: int) -> str:
    """Return how many rows of a table broke a rule, as a sentence."""
    return f"{table}: {n_broken:,} of {n_rows:,} rows: {explain(rule)}"


def _example(n_reasons: int, row: int, got: str | None, reason: str | None) -> str:
    """Return a bad cell and what is wrong with it, and how many rows have such a reason."""
    if got is None:
        return ""
    # As a literal, in which nothing acts on a terminal.
    cell = repr(got if len(got) <= MAX_EXAMPLE else f"{got[:MAX_EXAMPLE]}…")
    return f"; row {row} has {cell}" if reason is None else f"; {n_reasons:,} like {cell}: {reason}"


def _staying(n_kept: int, n_broken: int) -> str:
    if n_kept < n_broken:
        return f"{n_kept:,} of them stay"
    return "the row stays" if n_kept == 1 else "they stay"


@dataclass(frozen=True)
class Quarantine:
    """Reports on all tables that were loaded."""

    reports: tuple[TableReport, ...]

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of rows that broke each rule, by table."""
        return {report.table: report.counts() for report in self.reports}

    def kept(self) -> dict[str, dict[str, int]]:
        """Return the number of rows that are used without a bad cell, by table and rule."""
        return {report.table: report.kept() for report in self.reports}

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

    A row whose only faults are in cells that may be empty is valid, and those cells are empty. The
    split of a photo and the weight of a relation are exceptions: a row with a bad one is left out.

    Runs on the streaming engine, so that memory holds the answer and not the files.

    Args:
        frame: Result of ``recsys.data.coercion.coerce``.
        schema: Schema of ``recsys.schema`` whose column rules apply.
        table: Name of the table in the report.
        rules: Rules over the rows, by name; each is true or null where a row is valid.

    Raises:
        DataError: If the files are damaged, or hold no row.
    """
    columns, of_columns = schema.column_names(), _column_rules(schema)
    every = of_columns | dict(rules)
    optional = {rule for rule in of_columns if _is_optional(rule, schema)}
    checked = frame.with_row_index(ROW, offset=1).with_columns(
        valid.fill_null(True).alias(name) for name, valid in every.items()
    )
    is_used = pl.all_horizontal([rule for rule in every if rule not in optional])
    is_bad = ~pl.all_horizontal(list(every))
    checked = checked.cache()  # or polars would read everything once for each of the two parts
    with reading(table):
        # Without what was refused, which is null in almost every row.
        parts = [
            checked.filter(is_used).select(ROW, *columns),
            checked.filter(is_bad).with_columns(kept=is_used),
        ]
        used, bad = pl.collect_all(parts, engine="streaming")
    n_rows = len(used) + int((~bad["kept"]).sum())
    if not n_rows:
        raise DataError(f"table {table} must hold rows, got none")
    failures = _failures(bad, every, columns)
    report = TableReport(table, n_rows, len(used), failures)
    return Loaded(_without_bad_cells(used, failures, schema), report)


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


def _is_optional(rule: str, schema: type[dy.Schema]) -> bool:
    """Return whether a cell that breaks a rule may count as empty, so that its row can be used."""
    name = rule.partition("|")[0]
    # Without its split, a photo that was meant for testing could be trained on. A weight of 0 says
    # that there is no relation. Without its time, a pair would be given the features of another.
    required = name in ("split", "weight", "timestamp")
    return not required and default_of(name, schema.columns()[name]) is not None


def _failures(bad: pl.DataFrame, rules: Iterable[str], columns: list[str]) -> pl.DataFrame:
    """Return one row per row and rule that it breaks, in row order.

    Args:
        bad: Coerced bad rows, with a column for each rule that says whether it holds.
        rules: Names of the rules.
        columns: Names of the schema's columns.
    """
    frames = [_failures_of(bad.clear(), "", columns)]
    for rule in rules if len(bad) else ():
        column, _, name = rule.rpartition("|")
        broken = bad.filter(~pl.col(rule))
        if name == "nullability":  # what could not be read is null for that reason alone
            broken = broken.filter(pl.col(refused(column)).is_null())
        frames.append(_failures_of(broken, rule, columns))
    return pl.concat(frames).sort(ROW, maintain_order=True)


def _failures_of(rows: pl.DataFrame, rule: str, columns: list[str]) -> pl.DataFrame:
    column = rule.rpartition("|")[0] or columns[0]
    got = pl.col(refused(column))
    if not rows.schema[column].is_nested():
        got = got.fill_null(pl.col(column).cast(pl.String))
    reason = pl.lit(None, pl.String)
    return rows.select(
        pl.lit(rule).alias("rule"), ROW, got.alias("got"), reason.alias("reason"), "kept", *columns
    )


def _without_bad_cells(
    used: pl.DataFrame, failures: pl.DataFrame, schema: type[dy.Schema]
) -> pl.DataFrame:
    """Return the used rows, each cell that broke a rule replaced by the value of an empty one."""
    kept = failures.filter("kept").select(ROW, column=pl.col("rule").str.split("|").list.first())
    for (name,), cells in kept.group_by("column"):
        default = default_of(str(name), schema.columns()[str(name)])
        is_bad = pl.col(ROW).is_in(cells[ROW].implode())
        used = used.with_columns(
            pl.when(is_bad).then(default).otherwise(str(name)).alias(str(name))
        )
    return used


def add_failures(failures: pl.DataFrame, more: pl.DataFrame, *, kept: bool) -> pl.DataFrame:
    """Return the failures of a table and more that were found later, in row order.

    Args:
        failures: Failures of a ``TableReport``.
        more: Valid rows of ``validate`` that break another rule, with ``rule``, and ``got`` and
            ``reason`` where there are any.
        kept: Whether these rows are used all the same.
    """
    if not kept:
        is_left_out = pl.col(ROW).is_in(more[ROW].implode())
        failures = failures.with_columns(kept=pl.col("kept") & ~is_left_out)
    more = more.with_columns(kept=pl.lit(kept))
    both = pl.concat([failures, more], how="diagonal").select(failures.columns)
    return both.sort(ROW, maintain_order=True)
