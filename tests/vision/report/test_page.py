"""The page and the JSON file are read back as a browser and a program would read them."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from vision.report import evaluate_probabilities, read_report, write_report
from vision.report.page import heat_map
from vision.report.results import Curve, HardPicture, TargetResult, TowerReport

VOID = {"meta", "img", "br"}
PATHS = ["Fruit > Apple", "Fruit > Pear", "Milk > Oat & <script>"]
STORES = ["Lund", "Lund", "Lund", "Kiruna", "Kiruna", "Kiruna", "Kiruna", "Kiruna"]


class Page(HTMLParser):
    """The texts and attributes of a page, whose elements must be balanced."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def values(self, tag: str, name: str) -> list[str | None]:
        return [value for t, n, value in self.attributes if (t, n) == (tag, name)]


def target(predicted: list[int], temperature: float | None = None) -> TargetResult:
    """Return the result of these predictions for 2 apples, 3 pears, 2 oat milks and 1 unknown."""
    labels = np.array([0, 0, 1, 1, 1, 2, 2, -1])
    probabilities = 0.1 + 0.7 * np.eye(3)[predicted]
    result = evaluate_probabilities(
        probabilities, labels, PATHS, temperature=temperature, slices={"store": STORES}
    )
    curve = Curve("blur", "% of the side", (0.5, 1.0, 2.0), (0.6, 0.5, 0.25))
    return replace(result, robustness=(curve,))


@pytest.fixture
def report() -> TowerReport:
    return TowerReport(
        backbone="resnet18",
        size=128,
        n_pictures=8,
        rejected={"x.png": "x.png: image is empty"},
        targets={"category_2": target([0, 1, 1, 1, 0, 2, 1, 0], temperature=1.5)},
        unlabelled=("organic",),
        hardest_target="category_2",
        hardest=(
            HardPicture("a/7.png", PATHS[2], 0.1, PATHS[1], 0.8, "data:image/jpeg;base64,AAAA"),
        ),
    )


@pytest.fixture
def before(report: TowerReport) -> TowerReport:
    return replace(report, targets={"category_2": target([0] * 8)})


@pytest.fixture
def page(report: TowerReport, tmp_path: Path) -> Page:
    return Page(write_report(report, tmp_path).read_text("utf-8"))


def test_the_file_reads_back_equal(report: TowerReport, tmp_path: Path) -> None:
    write_report(report, tmp_path / "new" / "folder")
    assert read_report(tmp_path / "new" / "folder") == report
    values = json.loads((tmp_path / "new" / "folder" / "vision.json").read_text("utf-8"))
    assert values["format"] == 1
    assert values["targets"]["category_2"]["accuracy"]["mean"] == pytest.approx(4 / 7)


def test_the_page_shows_the_contents_of_the_report(page: Page) -> None:
    for expected in (
        "Backbone resnet18 , pictures of 128 × 128 pixels.",
        "8 pictures 1 target 1 unreadable",
        "organic: no picture has a known label.",
        "x.png: image is empty",
        "category_2 7 3 57.1",
        "3 of 7 pictures have a wrong prediction, 2 of them a sibling of the correct class.",
        "1 picture without a known label is not counted.",
        "At temperature 1.50 ECE",
        "Most confused siblings",
        "Apple Pear 2 40.0 %",
        "Fruit > Pear 3 50.0 66.7 57.1",
        "By store Pictures Accuracy Kiruna 4 50.0",
        "blur % of the side 60.0 at 0.5 50.0 at 1 25.0 at 2",
        "Oat & <script> 10.0 % predicted as Pear 80.0 % a/7.png",
    ):
        assert expected in page.text
    assert "before" not in page.text.lower()


def test_the_page_is_self_contained(page: Page, report: TowerReport, tmp_path: Path) -> None:
    html = write_report(report, tmp_path).read_text("utf-8")
    assert not re.search(r"https?://|@import|url\(|<script|<link|<iframe", html)
    assert page.values("img", "src") == ["data:image/jpeg;base64,AAAA"]


def test_the_evaluation_before_fine_tuning_is_shown_beside_the_one_after(
    report: TowerReport, before: TowerReport, tmp_path: Path
) -> None:
    page = Page(write_report(report, tmp_path, before=before).read_text("utf-8"))
    assert "before 7 3 28.6" in page.text
    assert "Accuracy went from 28.6 to 57.1 % ( +28.6 points )" in page.text
    assert "Before fine-tuning ECE" in page.text
    assert "Fruit > Pear 3 50.0 66.7 57.1 0.0" in page.text, "F1 before is the last column"
    assert page.values("path", "class").count("line before") == 1
    assert page.values("span", "class").count("up") == 1
    assert read_report(tmp_path) == report, "the file leaves the earlier evaluation out"
    page = Page(write_report(before, tmp_path, before=report).read_text("utf-8"))
    assert "( −28.6 points )" in page.text
    assert page.values("span", "class").count("down") == 1


def test_a_target_without_an_earlier_evaluation_has_no_comparison(
    report: TowerReport, before: TowerReport, tmp_path: Path
) -> None:
    both = replace(report, targets={**report.targets, "organic": target([0, 0, 1, 1, 1, 2, 2, 0])})
    page = Page(write_report(both, tmp_path, before=before).read_text("utf-8"))
    assert page.text.count("Accuracy went from") == 1
    assert "0 of 7 pictures have a wrong prediction." in page.text


def test_curves_are_drawn_to_scale(page: Page) -> None:
    (line,) = (
        d
        for d, c in zip(page.values("path", "d"), page.values("path", "class"), strict=True)
        if c == "line ours"
    )
    assert line is not None
    heights = [float(point.split()[1]) for point in re.split("[ML]", line)[1:]]
    shares = [(94 - height) / 86 for height in heights]
    np.testing.assert_allclose(shares, [4 / 7, 0.6, 0.5, 0.25], atol=1e-3)


def test_a_heat_map_has_the_shares_of_each_row(report: TowerReport) -> None:
    drawn = heat_map(report.targets["category_2"])
    assert drawn is not None
    assert drawn.labels == ["Apple", "Pear", "Oat & <script>"]
    shares = np.zeros((3, 3))
    for cell in drawn.cells:
        shares[cell.row, cell.column] = cell.share
    np.testing.assert_allclose(shares, [[1 / 2, 1 / 2, 0], [1 / 3, 2 / 3, 0], [0, 1 / 2, 1 / 2]])
    texts = [cell.text for cell in drawn.cells]
    assert "Fruit > Apple, predicted as Fruit > Pear: 1 of 2" in texts


def test_a_heat_map_shows_only_used_classes_and_is_left_out_beyond_100() -> None:
    names = [f"class {row:03}" for row in range(300)]
    labels = np.array([7, 200, 7])
    result = evaluate_probabilities(np.eye(300)[[7, 7, 250]], labels, names)
    drawn = heat_map(result)
    assert drawn is not None
    assert drawn.labels == ["class 007", "class 200", "class 250"]
    every = evaluate_probabilities(np.eye(300), np.arange(300), names)
    assert heat_map(every) is None


def test_a_minimal_report_gives_a_page_without_optional_sections(tmp_path: Path) -> None:
    one = evaluate_probabilities(np.ones((1, 1)), np.array([0]), ["only"])
    report = TowerReport("vit", 32, 1, {}, {"kind": one}, (), "kind", ())
    page = Page(write_report(report, tmp_path).read_text("utf-8"))
    for section in ("Left out", "Groups of pictures", "Robustness", "Most confused"):
        assert section not in page.text
    assert "No temperature was fitted, because there were no pictures to fit it to." in page.text
    assert read_report(tmp_path) == report


def test_a_missing_or_foreign_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"vision\.json must be a report written by write_report"):
        read_report(tmp_path)
    (tmp_path / "vision.json").write_text('{"format": 2}')
    with pytest.raises(ValueError, match=r"vision\.json must be a report .*"):
        read_report(tmp_path)


def test_an_earlier_evaluation_of_other_targets_is_refused(
    report: TowerReport, tmp_path: Path
) -> None:
    other = replace(report, targets={"colour": report.targets["category_2"]})
    with pytest.raises(ValueError, match=r"a target with the report \(category_2\), got colour"):
        write_report(report, tmp_path, before=other)
