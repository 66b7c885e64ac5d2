import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from recsys.answers import Reason, Result
from recsys.cli.output import (
    Terminal,
    announce_stage,
    console,
    interval,
    print_answer,
    print_json,
    print_report,
    print_rows,
    progress_bar,
    why,
)
from recsys.errors import FileAccessError
from recsys.evaluation.bootstrap import Estimate
from recsys.evaluation.outcomes import judge
from recsys.evaluation.results import (
    ClassificationRow,
    OfferRow,
    Offers,
    OfferTable,
    RankingTable,
    Report,
    RetrievalRow,
    SystemRow,
)

Captured = pytest.CaptureFixture[str]


def words(captured: Captured) -> str:
    """Return what was printed on one line, without the borders of tables."""
    out = "".join(" " if char in "│┃" else char for char in captured.readouterr().out)
    return " ".join(out.split())


def row(name: str, mean: float, metrics: tuple[str, ...]) -> SystemRow:
    values = {metric: Estimate(mean, mean - 0.01, mean + 0.01) for metric in metrics}
    return SystemRow(name, "ours", values, {}, {10: 0.5})


def test_printed_json_parses_to_the_same_value(capsys: Captured) -> None:
    value = {"title": "Krug [bold] “blau”\n" + "x" * 300, "score": 1 / 3, "none": None}
    print_json(value)
    assert json.loads(capsys.readouterr().out) == value


def test_an_interval_is_printed_as_a_mean_and_its_bounds() -> None:
    assert interval(Estimate(0.12345, 0.1, 0.2)) == "0.123 [0.100, 0.200]"


@pytest.mark.parametrize(("reason", "shown"), [("Often bought with X", True), ("", False)])
def test_results_without_any_reason_have_no_column_for_it(
    reason: str, shown: bool, capsys: Captured
) -> None:
    why = Reason("taste", None, reason) if shown else None
    print_answer(
        "found",
        [Result("a", 1.0, "taste"), Result("b", 0.5, "taste", reason=why)],
        ["Mug", "Cup"],
    )
    out = words(capsys)
    assert ("reason" in out) is shown
    assert reason in out
    assert "Cup 0.500 taste" in out
    assert "probability" not in out


def test_figures_of_probabilities_are_printed_one_row_a_scope(capsys: Captured) -> None:
    users = np.repeat(np.arange(4), 50)
    stated = np.linspace(0.01, 0.2, 200)
    row = judge("all", 30.0, users, stated, np.arange(200) % 10 == 9)
    print_report(Report("Shop", "now", probabilities=[row]))
    out = words(capsys)
    assert "probability of taking an item within 30 days" in out
    assert "all 4 0.10500 0.10000" in out


def test_probabilities_are_printed_as_shares_and_left_empty_where_unknown(
    capsys: Captured,
) -> None:
    results = [Result("a", 1.0, "taste", probability=0.0123), Result("b", 0.5, "new")]
    print_answer("found", results, ["Mug", None])
    out = words(capsys)
    assert "a Mug 1.000 1.23 % taste b 0.500 new" in out
    assert "probability" in out


def test_reasons_are_printed_on_one_line_with_signs() -> None:
    features = (("popularity", 0.5), ("age", -0.254))
    assert why(Result("a", 1.0, "taste", features)) == "popularity +0.50, age -0.25"
    assert why(Result("a", 1.0, "taste")) == ""
    reason = Reason("taste", "b", "Because you bought B")
    assert why(Result("a", 1.0, "taste", features, reason)) == "Because you bought B"


def test_a_table_is_printed_with_its_title_columns_and_cells(capsys: Captured) -> None:
    print_rows("sizes", ("what", "count"), [("items", 3), ("users", None)])
    assert words(capsys).startswith("sizes")
    print_rows("sizes", ("what", "count"), [("items", 3), ("users", None)])
    shown = words(capsys)
    for cell in ("what", "count", "items", "3", "users", "None"):
        assert cell in shown.split()


def test_the_name_of_a_stage_is_printed(capsys: Captured) -> None:
    announce_stage("vision")
    assert capsys.readouterr().out == "vision\n"


def test_a_report_shows_the_headline_metrics_of_every_system(capsys: Captured) -> None:
    metrics = ("ndcg@10", "recall@20", "hit_rate@10", "mrr@10")
    systems = [row("full", 0.345, metrics), row("popularity", 0.081, metrics)]
    print_report(Report("Shop", "now", rankings=[RankingTable("all", 1394, 3618, systems)]))
    shown = words(capsys)
    assert "scope all: 1,394 users, 3,618 items" in shown
    assert shown.count("0.345") == shown.count("0.081") == 3
    assert "mrr@10" not in shown


def test_a_report_shows_what_the_sources_offer_and_what_is_lost(capsys: Captured) -> None:
    table = OfferTable(
        scope="all",
        n_users=1_000,
        n_candidates=3_618,
        n_offered=1_204.4,
        sources=[OfferRow("next_visit", 200, Estimate(0.41, 0.4, 0.42))],
        union=Estimate(0.83, 0.8, 0.85),
        ndcg=Estimate(0.196, 0.18, 0.21),
        ndcg_of_all=Estimate(0.2, 0.19, 0.22),
        lost=Estimate(0.004, -0.001, 0.006),
    )
    print_report(Report("Shop", "now", offers=Offers("offers are ranked", [table])))
    shown = words(capsys)
    assert "scope all: candidates of 1,000 users" in shown
    assert "next_visit 200 0.410 [0.400, 0.420]" in shown
    assert "all together 1204 0.830 [0.800, 0.850]" in shown
    assert "0.200 [0.190, 0.220] of all items: 2.0 % lost" in shown
    assert shown.endswith("candidates: offers are ranked")


def test_a_metric_that_was_not_measured_is_not_shown(capsys: Captured) -> None:
    systems = [row("full", 0.345, ("ndcg@10", "hit_rate@10"))]
    print_report(Report("Shop", "now", rankings=[RankingTable("all", 1, 1, systems)]))
    shown = words(capsys)
    assert "ndcg@10" in shown
    assert "recall@20" not in shown


def test_a_report_has_tables_for_photos_only_if_there_are_photos(capsys: Captured) -> None:
    estimate = Estimate(0.5, 0.4, 0.6)
    report = Report(
        "Shop",
        "now",
        retrieval=[RetrievalRow("photo → product", 40, 81, estimate, estimate)],
        classification=[ClassificationRow("category_1", 41, 5, estimate, 0.1)],
    )
    print_report(report)
    shown = words(capsys)
    assert "photo categories" in shown
    assert "category_1 41 5 0.500 [0.400, 0.600]" in shown
    assert "retrieval" in shown
    print_report(Report("Shop", "now"))
    assert words(capsys) == ""


def test_a_report_names_the_weights_of_the_towers(capsys: Captured) -> None:
    began = "the vision tower began with lite (package lite 1), licence Apache-2.0"
    print_report(Report("Shop", "now", weights=[began]))
    assert words(capsys) == began


def test_a_report_names_the_rules_of_the_lists(capsys: Captured) -> None:
    print_report(Report("Shop", "now", rules="diversity 0.3, 2 of pin"))
    assert words(capsys) == "lists are made by rules: diversity 0.3, 2 of pin"


def test_a_report_says_what_a_search_for_settings_found(capsys: Captured) -> None:
    print_report(Report("Shop", "now", tuning="20 trials, of which the best is taken"))
    assert words(capsys) == "settings by search: 20 trials, of which the best is taken"


def test_each_task_has_one_progress_bar_unless_bars_are_hidden(capsys: Captured) -> None:
    with progress_bar() as advance:
        advance("pictures", 1, 2)
        advance("pictures", 2, 2)
        advance("events", 3, 4)
    shown = words(capsys)
    assert shown.count("pictures") == 1
    assert "100%" in shown
    assert "75%" in shown
    with progress_bar(visible=False) as advance:
        advance("pictures", 1, 2)
    assert words(capsys) == ""


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("[red]mug[/] [/] :mug:", "[red]mug[/] [/] :mug:"),
        ("\x1b[2Jmug\u202e", "\\u001b[2Jmug\\u202e"),
        ("café 中 \ud800", "café 中 \\ud800"),
    ],
)
def test_no_title_acts_on_the_terminal(capsys: Captured, title: str, shown: str) -> None:
    console.print(title)
    assert capsys.readouterr().out == f"{shown}\n"
    print_rows(title, (title,), [(title,)])
    assert words(capsys).count(shown) == 3
    print_json({title: [title]})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {title: [title]}
    assert not {"\x1b", "\u202e", "\ud800"} & set(printed)


def test_a_cell_is_one_line_of_limited_length(capsys: Captured) -> None:
    print_rows("titles", ("title",), [("mug\nerror: forged",), ("long " * 4_000,)])
    printed = capsys.readouterr().out
    assert "mug\\nerror: forged" in printed
    assert len(printed.splitlines()) < 12


def test_a_full_disk_behind_a_stream_is_an_expected_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with suppress(OSError), Path("/dev/full").open("w") as full:  # closing it may try again
        monkeypatch.setattr("sys.stdout", full)
        with pytest.raises(FileAccessError, match="output cannot be written: No space left"):
            Terminal().print("mug")


def test_a_terminal_without_unicode_ends_no_command() -> None:
    program = """if True:
        from recsys.cli.app import _prepare_streams
        from recsys.cli.output import console, errors, print_json, print_rows
        _prepare_streams()
        print_rows("café", ("中",), [("é",)])
        errors.print("error: 中")
        print_json({"title": "中 😀"})
    """
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        env={"PYTHONIOENCODING": "ascii"},
        check=True,
    )
    table, brace, document = done.stdout.decode("ascii").partition("{")
    assert "caf\\xe9" in table
    assert json.loads(brace + document) == {"title": "中 😀"}
    assert "error: \\u4e2d" in done.stderr.decode("ascii")
