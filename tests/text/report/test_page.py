"""The page and the JSON file, read back as a browser or a program reads them."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from text.report import read_report, write_report
from text.report.results import Estimate, SearchResult, TargetResult, TextReport

VOID = {"meta", "br"}


class Page(HTMLParser):
    """Texts and balance of a page's elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture
def report() -> TextReport:
    found = SearchResult(200, Estimate(0.875, 0.8, 0.9), Estimate(0.5, 0.45, 0.55))
    separated = TargetResult(1190, 10, 12, Estimate(0.75, 0.7, 0.8), Estimate(0.6, 0.5, 0.7), 0.25)
    return TextReport(
        encoder="BertModel",
        dim=256,
        n_texts=1200,
        searches={"two words": found},
        scripts={"Latin": found, "Cyrillic": found},
        targets={"attribute_<colour>": separated},
    )


def test_the_file_is_read_back_as_it_was_written(report: TextReport, tmp_path: Path) -> None:
    assert write_report(report, tmp_path / "new" / "folder").name == "text.html"
    assert read_report(tmp_path / "new" / "folder") == report


def test_the_page_has_every_number_and_needs_no_other_file(
    report: TextReport, tmp_path: Path
) -> None:
    html = write_report(report, tmp_path).read_text(encoding="utf-8")
    page = Page(html)
    assert (
        "Query Texts Hit rate at 10 Reciprocal rank two words 200 87.5 80.0–90.0 50.0" in page.text
    )
    assert "attribute_<colour> 1,190 75.0 70.0–80.0 60.0 50.0–70.0 12 25.0 10" in page.text
    assert "Cyrillic 200 87.5" in page.text
    assert "before" not in page.text
    assert not re.search(r"(src|href)=|url\(|@import|<script", html)


def test_an_earlier_evaluation_is_shown_beside_this_one(report: TextReport, tmp_path: Path) -> None:
    worse = SearchResult(200, Estimate(0.125, 0.1, 0.2), Estimate(0.0625, 0.05, 0.07))
    before = replace(report, searches={"two words": worse}, targets={})
    page = Page(write_report(report, tmp_path, before=before).read_text(encoding="utf-8"))
    assert "two words 200 87.5 80.0–90.0 50.0 45.0–55.0 before 200 12.5" in page.text
    assert read_report(tmp_path) == report


def test_one_script_and_no_target_have_no_section(report: TextReport, tmp_path: Path) -> None:
    small = replace(report, scripts={"Latin": report.scripts["Latin"]}, targets={})
    page = Page(write_report(small, tmp_path).read_text(encoding="utf-8"))
    assert "Scripts" not in page.text
    assert "How well classes are separated" not in page.text


def test_an_evaluation_of_other_texts_is_refused(report: TextReport, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="same 1200 texts as the report, got 7"):
        write_report(report, tmp_path / "none", before=replace(report, n_texts=7))
    assert not (tmp_path / "none").exists()


def test_a_file_that_is_not_a_report_is_refused(report: TextReport, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"text\.json must be a report that write_report wrote"):
        read_report(tmp_path)
    write_report(report, tmp_path)
    values = json.loads((tmp_path / "text.json").read_text())
    (tmp_path / "text.json").write_text(json.dumps({**values, "format": 2}))
    with pytest.raises(ValueError, match="must be a report"):
        read_report(tmp_path)
