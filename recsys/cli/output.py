"""Print results of commands, as tables for people or JSON for programs, and write images.

Titles, ids and paths come from suppliers. What commands print goes through ``console`` and
``errors``, where no text can act on the terminal.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from recsys.data.files import whole_file
from recsys.errors import FileAccessError
from vision.printable import one_line, printable

if TYPE_CHECKING:
    from PIL.Image import Image

    from recsys.answers import Result
    from recsys.evaluation.bootstrap import Estimate
    from recsys.evaluation.probabilities import Probabilities
    from recsys.evaluation.results import Offers, ProbabilityRow, RankingTable, Report
    from recsys.recommender import Recommender

MAX_CELL_CHARACTERS = 200


class Terminal(Console):
    """A console that shows any text as it is: no markup, no codes of emoji, no escape sequences."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, soft_wrap=True)

    def __exit__(self, *error: Any) -> None:
        """Write what was printed, which is when a full disk shows.

        Raises:
            FileAccessError: If the stream cannot be written.
        """
        try:
            super().__exit__(*error)
        except OSError as problem:
            stream = "error" if self.stderr else "output"
            raise FileAccessError(
                f"standard {stream} cannot be written: {problem.strerror}"
            ) from problem

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text to print; every text passes here, also the cells of tables."""
        return super().render_str(printable(text), **options)


console, errors = Terminal(), Terminal(stderr=True)


def print_json(value: Any) -> None:
    """Print one JSON document, in ASCII where the terminal has no Unicode."""
    text = json.dumps(value, default=str, indent=2, ensure_ascii=console.options.ascii_only)
    console.print(JSONHighlighter()(printable(text)))  # whose escapes are those of JSON


def write_picture(picture: "Image", path: Path) -> None:
    """Write an image in the format of the file's suffix, whole or not at all.

    Raises:
        FileAccessError: If the file cannot be written.
    """
    from PIL import Image

    with whole_file(path) as scratch:
        picture.save(scratch, format=Image.registered_extensions()[path.suffix.lower()])


def print_rows(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(one_line(str(cell), limit=MAX_CELL_CHARACTERS) for cell in row))
    console.print(table, soft_wrap=False)


def print_results(
    title: str, results: "Sequence[Result]", recommender: "Recommender", *, as_json: bool
) -> None:
    """Print scored items with their titles, and why an answer is degraded."""
    from recsys.answers import Answer

    degraded = results.degraded if isinstance(results, Answer) else ()
    if as_json:
        print_json(
            {
                "bundle_version": recommender.version,
                "degraded": list(degraded),
                "results": [
                    {**asdict(result), "features": dict(result.features)} for result in results
                ],
            }
        )
        return
    items = recommender.catalogue.records([result.item_id for result in results])
    title = f"{title}, degraded: {', '.join(degraded)}" if degraded else title
    print_answer(title, results, items["title"].to_list())


def print_answer(title: str, results: "Sequence[Result]", titles: Sequence[str | None]) -> None:
    """Print results with the titles of their items; a column that none fills is left out."""
    columns = {
        "item": [result.item_id for result in results],
        "title": [name or "" for name in titles],
        "score": [f"{result.score:.3f}" for result in results],
        "probability": [
            "" if result.probability is None else f"{100 * result.probability:.3g} %"
            for result in results
        ],
        "source": [result.source for result in results],
        "reason": [why(result) for result in results],
    }
    optional = ("probability", "reason")
    shown = {name: cells for name, cells in columns.items() if name not in optional or any(cells)}
    print_rows(title, [*shown], list(zip(*shown.values(), strict=True)))


def why(result: "Result") -> str:
    """Return the reason of a result; without one, the features that raised its score."""
    if result.reason is not None:
        return result.reason.text
    return ", ".join(f"{name} {value:+.2f}" for name, value in result.features)


def announce_stage(stage: str) -> None:
    """Print the name of a stage as it begins."""
    console.print(stage, style="bold")


def print_report(report: "Report") -> None:
    """Print the headline figures of a report as tables."""
    from recsys.evaluation.results import headline

    for table in report.rankings:
        _print_ranking(table, headline(table.systems[0].metrics))
    if report.offers is not None:
        _print_offers(report.offers)
    _print_probabilities(report.probabilities)
    if report.classification:
        print_rows(
            "photo categories",
            ("level", "photos", "classes", "accuracy [95 %]"),
            [
                (row.target, row.n_photos, row.n_classes, interval(row.accuracy))
                for row in report.classification
            ],
        )
    if report.retrieval:
        print_rows(
            "retrieval",
            ("task", "queries", "items", "top 1 [95 %]", "top 5 [95 %]"),
            [
                (row.task, row.n_queries, row.n_candidates, interval(row.top1), interval(row.top5))
                for row in report.retrieval
            ],
        )
    for sentence in report.weights:
        console.print(sentence, highlight=False)
    for sentence in report.ranks_by:
        console.print(f"ranking of {sentence}")
    if report.identifies:
        console.print(f"photos: {report.identifies}", highlight=False)
    if report.tuning:
        console.print(f"settings by search: {report.tuning}", highlight=False)
    if report.rules:
        console.print(f"lists are made by rules: {report.rules}")


def _print_ranking(table: "RankingTable", names: Sequence[str]) -> None:
    """Print a table of systems with the named metrics, and what is to be known about its lists."""
    print_rows(
        f"scope {table.scope}: {table.n_users:,} users, {table.n_candidates:,} items",
        ("system", *(f"{name} [95 %]" for name in names)),
        [(row.name, *(interval(row.metrics[name]) for name in names)) for row in table.systems],
    )
    _print_comparisons(table, names[0])
    _print_shown(table)
    for row in table.systems:
        if row.counts is not None:
            console.print(f"{row.name}: {row.counts.sentence()}", highlight=False)
        if row.probabilities is not None:
            console.print(f"{row.name}: {_calibration(row.probabilities)}", highlight=False)


def _print_offers(offers: "Offers") -> None:
    """Print what is ranked, and the share of the answers that each source offers."""
    for table in offers.tables:
        rows = [(row.source, row.number, interval(row.recall)) for row in table.sources]
        title = f"scope {table.scope}: candidates of {table.n_users:,} users"
        union = ("all together", f"{table.n_offered:.0f}", interval(table.union))
        print_rows(title, ("source", "offers", "recall [95 %]"), [*rows, union])
        console.print(
            f"ndcg@10 {interval(table.ndcg)} of the offers, {interval(table.ndcg_of_all)} of all "
            f"items: {100 * table.lost_share:.1f} % lost"
        )
    console.print(f"candidates: {offers.sentence}")


def _print_probabilities(rows: "Sequence[ProbabilityRow]") -> None:
    """Print how well probabilities agree with what users took, one row per scope."""
    if rows:
        columns = ("scope", "users", "stated", "taken", "log-loss [95 %]", "of one rate", "error")
        print_rows(
            f"probability of taking an item within {rows[0].days:.3g} days",
            columns,
            [
                (
                    row.scope,
                    f"{row.n_users:,}",
                    f"{row.stated:.5f}",
                    f"{row.happened:.5f}",
                    " ".join(f"{one:.5f}" for one in row.log_loss),
                    f"{row.log_loss_of_rate:.5f}",
                    f"{row.calibration_error:.5f}",
                )
                for row in rows
            ],
        )


def _print_comparisons(table: "RankingTable", metric: str) -> None:
    """Print how far ours is ahead, whether chance explains it, and what would be found."""
    rows = [
        (
            row.name,
            interval(row.behind[metric], sign="+"),
            f"{row.tests[metric].p_holm:.4f}",
            f"{row.tests[metric].detectable:.3f}",
        )
        for row in table.systems
        if row.behind
    ]
    if rows:
        columns = ("ours against", f"ahead by, {metric} [95 %]", "p (Holm)", "found from")
        print_rows(f"scope {table.scope}: differences", columns, rows)


def _print_shown(table: "RankingTable") -> None:
    rows = []
    for system in table.systems:
        if system.shown is not None:
            k = min(system.coverage)
            shown = (system.shown.novelty, system.shown.diversity, system.shown.popularity)
            means = ("" if (one := by_k[k]) is None else f"{one.mean:.3f}" for by_k in shown)
            share = f"{system.coverage[k]:.3f}"
            rows.append((system.name, *means, f"{system.shown.gini[k]:.3f}", share))
    if rows:
        taken = table.popularity_taken
        wanted = f" (taken: {taken.mean:.3f})" if taken is not None else ""
        columns = ("novelty", "diversity", f"popularity{wanted}", "Gini", "coverage")
        title = f"scope {table.scope}: what is shown in the first {min(table.systems[0].coverage)}"
        print_rows(title, ("system", *columns), rows)


def _calibration(stated: "Probabilities") -> str:
    return (
        f"log-loss {interval(stated.log_loss)} and calibration error "
        f"{stated.calibration_error:.3f} over {stated.n_pairs:,} listed pairs"
    )


def interval(estimate: "Estimate", *, sign: Literal["", "+"] = "") -> str:
    """Return a mean and its interval, such as ``0.512 [0.480, 0.544]``.

    Args:
        estimate: Mean and interval.
        sign: "+" writes the sign of positive numbers, too.
    """
    mean, low, high = (f"{number:{sign}.3f}" for number in estimate)
    return f"{mean} [{low}, {high}]"


@contextmanager
def progress_bar(*, visible: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function that shows the progress of a task: its name, steps done, steps in total."""
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not visible,
    ) as bar:
        tasks: dict[str, TaskID] = {}

        def advance(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done, total=total)

        yield advance
