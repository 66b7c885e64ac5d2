from datetime import UTC, datetime

import pytest

from benchmarks.record import Result
from benchmarks.table_rows import TABLES
from benchmarks.tables import render


def _result(name: str, value: float, unit: str = "ndcg", command: str = "make bench") -> Result:
    return Result(
        name=name,
        value=value,
        unit=unit,
        command=command,
        hardware="EPYC, 2 cores",
        versions={"python": "3.12.1"},
        at=datetime(2026, 1, 2, 3, tzinfo=UTC),
    )


def _block(name: str, body: str = "") -> str:
    return (
        f"# Title\n\n<!-- results:begin {name} -->\n{body}<!-- results:end {name} -->\n\nAfter.\n"
    )


def test_a_block_is_replaced_by_the_table_of_the_recorded_numbers() -> None:
    results = {
        "demo.seconds": _result("demo.seconds", 212.4, "s", "make demo"),
        "demo.peak_gb": _result("demo.peak_gb", 2.345, "GB", "make demo"),
        "tests.seconds": _result("tests.seconds", 99.0, "s", "make test"),
    }

    assert render(_block("commands", "| old |\n"), results) == _block(
        "commands",
        "| command | time | peak memory |\n"
        "| --- | ---: | ---: |\n"
        "| `make demo`, after the install | 212 s | 2.35 GB |\n"
        "| `make test` | 99 s | – |\n"
        "\n"
        "Measured 2026-01-02 on EPYC, 2 cores. Again: `make demo`, `make test`.\n",
    )


def test_metrics_have_three_decimals_and_tiny_numbers_an_exponent() -> None:
    results = {
        "shop.ndcg@10.ratio_to_best_baseline": _result("shop.ndcg@10.ratio_to_best_baseline", 1.5),
        "parity.max_abs_diff": _result("parity.max_abs_diff", 2.4e-7),
    }

    lines = render(_block("shop"), results).splitlines()

    cells = [line.split("|")[2].strip() for line in lines[5:9]]
    assert cells == ["1.500", "–", "–", "2.4e-07"]


def test_a_table_shows_this_library_below_the_baselines() -> None:
    results = {
        "online_retail.ease.all.ndcg@10": _result("online_retail.ease.all.ndcg@10", 0.265),
        "online_retail.all.ndcg@10": _result("online_retail.all.ndcg@10", 0.3),
    }

    text = render(_block("online_retail"), results)

    assert "| EASE | 0.265 | – | – | – |" in text
    assert "| this library, mean of three seeds | 0.300 | – | – | – |" in text


def test_a_table_without_results_says_that_nothing_was_measured() -> None:
    assert "Not measured yet." in render(_block("grocery_store"), {})


def test_rendering_again_changes_nothing() -> None:
    text = "".join(_block(name) for name in TABLES)
    once = render(text, {"demo.seconds": _result("demo.seconds", 1.0, "s")})

    assert render(once, {"demo.seconds": _result("demo.seconds", 1.0, "s")}) == once


def test_text_without_markers_is_left_alone() -> None:
    assert render("no tables here\n", {}) == "no tables here\n"


def test_a_marker_of_an_unknown_table_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must name one of \['commands', .* got \['speed'\]"):
        render(_block("speed"), {})


@pytest.mark.parametrize(
    "text",
    [
        "<!-- results:begin shop -->\n",
        "<!-- results:end shop -->\n",
        "<!-- results:begin shop -->\n<!-- results:end commands -->\n",
        "<!-- results:begin shop -->\n<!-- results:begin shop -->\n<!-- results:end shop -->\n",
    ],
)
def test_a_marker_without_its_partner_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be followed by its results:end marker"):
        render(text, {})
