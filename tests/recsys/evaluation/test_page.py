"""The page and the JSON file, read back as a browser or a program reads them."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recsys.evaluation.bootstrap import Estimate
from recsys.evaluation.outcomes import judge
from recsys.evaluation.page import write_report
from recsys.evaluation.results import (
    ClassificationRow,
    ExposureTable,
    Failure,
    GalleryItem,
    GalleryUser,
    OfferRow,
    Offers,
    OfferTable,
    QuarantineRow,
    RankingTable,
    Report,
    RetrievalRow,
    Role,
    Shown,
    SliceRow,
    StageTiming,
    SystemRow,
)
from recsys.evaluation.significance import PairedTest

Attributes = list[tuple[str, str | None]]
VOID = {"meta", "img", "br", "line", "rect", "path", "circle"}


class Page(HTMLParser):
    """Texts, attributes and balance of a page's elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Attributes) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Attributes) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def values(self, tag: str, name: str) -> list[str]:
        return [value or "" for t, n, value in self.attributes if (t, n) == (tag, name)]


def picture(colour: str, side: int = 300) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "PNG")
    return buffer.getvalue()


def row(
    name: str, role: Role, mean: float, gain: Estimate | None = None, p_holm: float = 0.0042
) -> SystemRow:
    metrics = {
        metric: Estimate(mean, mean - 0.02, mean + 0.02)
        for metric in ("ndcg@10", "recall@20", "hit_rate@10", "mrr@10")
    }
    behind = {} if gain is None else dict.fromkeys(metrics, gain)
    tests = dict.fromkeys(behind, PairedTest(0.001, p_holm, 0.023))
    some = {k: Estimate(0.7, 0.6, 0.8) for k in (10, 20)}
    shown = Shown(
        {10: Estimate(7.25, 7, 8), 20: None}, {10: None, 20: None}, some, {10: 0.9, 20: 1}
    )
    return SystemRow(name, role, metrics, behind, {10: 0.25, 20: 0.5}, tests, shown)


def slice_row(label: str, ours: float) -> SliceRow:
    systems = {
        "full model": Estimate(ours, ours - 0.1, ours + 0.1),
        "iALS": Estimate(0.2, 0.1, 0.25),
        "text only": Estimate(0.9, 0.9, 0.9),
    }
    return SliceRow("activity", label, 464, "ndcg@10", systems)


@pytest.fixture
def report() -> Report:
    ours = row("full model", "ours", 0.345)
    worse = row("EASE (λ = 200)", "baseline", 0.265, Estimate(0.08, 0.06, 0.1))
    alike = row("iALS", "baseline", 0.3, Estimate(0.045, 0.001, 0.09), 0.06)
    better = row("text only", "ablation", 0.4, Estimate(-0.055, -0.07, -0.03))
    gallery = GalleryUser(
        "u7",
        history=[GalleryItem("Steel jug", picture("red"), "2 days ago")],
        recommended=[
            GalleryItem("<script>alert('x')</script>", picture("blue"), "looks like Steel jug"),
            GalleryItem("Paper lantern", None, "bought again", taken=True),
            GalleryItem("turned\u202e\x00\x1b[2J", None, "half\ud800"),
        ],
    )
    failure = Failure(
        user_id="u8",
        metric="ndcg@10",
        ours=0.0,
        theirs=1.0,
        system="EASE (λ = 200)",
        history=[],
        right=[GalleryItem("Tin whistle", picture("red"))],
        our_list=[GalleryItem("Wooden spoon", None)],
        their_list=[GalleryItem("Tin whistle", picture("red"), taken=True)],
    )
    return Report(
        title="Corner shop & sons",
        created_at="2026-01-02T03:04:05+00:00",
        bundle_version="9f2c41d0",
        split_time="2025-11-09T00:00:00+00:00",
        sizes={"items": 12345, "users": 678},
        left_out=["Image tower: no item has a picture."],
        weights=["the vision tower began with lite (package lite 1), licence Apache-2.0"],
        rules="diversity 0.3, 2 of pin",
        rankings=[
            RankingTable(
                "all",
                1394,
                3618,
                [ours, better, alike, worse],
                popularity_taken=Estimate(0.61, 0.6, 0.62),
                exposure=[
                    ExposureTable(
                        "brand",
                        10,
                        on_offer={"Acme": 0.25},
                        taken={"Acme": 0.5},
                        shown={row.name: {"Acme": 0.75} for row in (ours, better, alike, worse)},
                    )
                ],
                slices=[slice_row("low", 0.3), slice_row("high", 0.5)],
            )
        ],
        offers=Offers(
            "of 3,618 items, those that the sources of candidates offer are ranked",
            [
                OfferTable(
                    scope="new",
                    n_users=1_000,
                    n_candidates=3_618,
                    n_offered=1_204.4,
                    sources=[OfferRow("next_visit", 200, Estimate(0.41, 0.4, 0.42))],
                    union=Estimate(0.83, 0.8, 0.85),
                    ndcg=Estimate(0.196, 0.18, 0.21),
                    ndcg_of_all=Estimate(0.2, 0.19, 0.22),
                    lost=Estimate(0.004, -0.001, 0.006),
                )
            ],
        ),
        retrieval=[
            RetrievalRow("photo → item", 40, 81, Estimate(0.5, 0.4, 0.6), Estimate(0.8, 0.7, 0.9))
        ],
        classification=[ClassificationRow("fine", 40, 81, Estimate(0.61, 0.5, 0.7), 0.1)],
        timings=[StageTiming("vision", 131.0), StageTiming("text", 0.4, reused=True)],
        quarantine=[QuarantineRow("events", "item_id must be known", 12, 0)],
        gallery=[gallery],
        failures=[failure],
    )


@pytest.fixture
def page(report: Report, tmp_path: Path) -> Page:
    return Page(write_report(report, tmp_path).read_text("utf-8"))


def test_page_says_everything_that_the_report_holds(page: Page) -> None:
    for expected in (
        "Here of 3,618 items, those that the sources of candidates offer are ranked.",
        "1,000 users. NDCG@10 of the offers .196, of all items .200: 2.0 % lost (+.004, −.001 to",
        "next_visit 200 .410 .400–.420",
        "All together 1,204 .830",
        "Corner shop & sons",
        "trained on everything before 2025-11-09T00:00:00+00:00",
        "Bundle 9f2c41d0",
        "12,345 items",
        "Image tower: no item has a picture.",
        "Weights the vision tower began with lite (package lite 1), licence Apache-2.0",
        "Rules of the lists diversity 0.3, 2 of pin",
        "1,394 users, 3,618 items ranked for each",
        "full model ours .345 .325–.365",
        "EASE (λ = 200) baseline .265 .245–.285",
        "photo → item 40 81 50.0 % 40.0–60.0 80.0 % 70.0–90.0",
        "fine 40 81 61.0 % 50.0–70.0 10.0 %",
        "vision 2 min 11 s text 0.4 s reused",
        "events item_id must be known 12",
        "Paper lantern bought again taken later",
        "turned\\u202e\\u0000\\u001b[2J half\\ud800",
        "+.080 +.060 to +.100 p = 0.0042 found from .023",
        "● full model, ● iALS, the best baseline",
        "activity low 464 .300 .200 high 464 .500 .200",
        "(what users took: .610)",
        "full model 7.2 – 0.700 .900",
        "Acme 25.0 % 50.0 % 75.0 % 75.0 %",
        "User u8: NDCG@10 .000, EASE (λ = 200) 1.000 Did last Nothing. Took later Tin whistle Ours",
    ):
        assert expected in page.text


def test_gain_is_marked_only_where_the_corrected_test_finds_it(page: Page) -> None:
    classes = page.values("span", "class")
    assert "+.080 +.060 to +.100" in page.text
    assert "+.045 +.001 to +.090 p = 0.0600" in page.text
    assert "−.055 −.070 to −.030" in page.text
    assert classes.count("mean sure") == 1
    assert classes.count("mean worse") == 1


def test_bars_are_drawn_to_one_scale_per_column(page: Page) -> None:
    widths = [float(width) for width in page.values("rect", "width")][:12]
    ndcg = widths[0::3]
    np.testing.assert_allclose(
        np.array(ndcg) / ndcg[1], [0.345 / 0.4, 1, 0.3 / 0.4, 0.265 / 0.4], atol=1e-3
    )
    assert max(ndcg) < 150


def test_page_loads_nothing_from_anywhere(page: Page, report: Report, tmp_path: Path) -> None:
    html = write_report(report, tmp_path).read_text("utf-8")
    assert not re.search(r"https?://|@import|url\(|<script|<link|<iframe", html)
    sources = page.values("img", "src")
    assert len(sources) == 4
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)


def test_slices_are_drawn_to_one_scale_and_leave_no_dot_outside(page: Page) -> None:
    places = [float(x) for x in page.values("circle", "cx")]
    # Ours, theirs, ours, theirs; the highest end of an interval is 0.6.
    np.testing.assert_allclose(places, [4 + 300 * x / 0.6 for x in (0.3, 0.2, 0.5, 0.2)], atol=0.1)


def test_pictures_are_embedded_as_small_thumbnails(page: Page) -> None:
    data = base64.b64decode(page.values("img", "src")[0].partition(",")[2])
    with Image.open(io.BytesIO(data)) as thumbnail:
        assert thumbnail.size == (160, 160)
        assert np.allclose(np.asarray(thumbnail)[80, 80], [255, 0, 0], atol=8)


def test_pictures_beyond_the_budget_are_left_out_and_counted(
    report: Report, tmp_path: Path
) -> None:
    html = write_report(report, tmp_path, picture_budget_bytes=1_500).read_text("utf-8")
    page = Page(html)
    assert len(page.values("img", "src")) == 1
    assert "1 picture is not shown to keep this page small." in page.text


def test_picture_that_cannot_be_read_is_counted_and_not_shown(
    report: Report, tmp_path: Path
) -> None:
    broken = GalleryUser("u8", [], [GalleryItem("Mug", b"not a picture")])
    page = Page(write_report(Report("Shop", "now", gallery=[broken]), tmp_path).read_text("utf-8"))
    assert page.values("img", "src") == []
    assert "1 picture could not be read." in page.text


def test_probabilities_stand_beside_what_was_taken(tmp_path: Path) -> None:
    users = np.repeat(np.arange(4), 50)
    stated = np.linspace(0.01, 0.2, 200)
    row = judge("all", 30.0, users, stated, np.arange(200) % 10 == 9)
    report = Report("Shop", "now", probabilities=[row])
    page = Page(write_report(report, tmp_path).read_text("utf-8"))
    assert "taking the item within 30 days" in page.text
    assert "4 users, 200 pairs. Stated 10.5000 %, taken 10.0000 %." in page.text
    assert f"Calibration error {row.calibration_error:.5f}." in page.text
    (stored,) = json.loads((tmp_path / "metrics.json").read_text("utf-8"))["probabilities"]
    assert stored["groups"][0]["n_pairs"] == row.groups[0].n_pairs
    assert stored["log_loss"]["mean"] == row.log_loss.mean


def test_empty_report_is_a_page_without_empty_sections(tmp_path: Path) -> None:
    page = Page(write_report(Report("Shop", "now"), tmp_path).read_text("utf-8"))
    assert "Rows that broke a rule None: every row passed." in page.text
    for section in ("Recommendations", "Search and identification", "Categories", "A few users"):
        assert section not in page.text


def test_metrics_file_has_every_number_and_no_picture(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path)
    values = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    table = values["rankings"][0]
    assert (table["scope"], table["n_users"], table["n_candidates"]) == ("all", 1394, 3618)
    assert table["systems"][0]["metrics"]["mrr@10"] == pytest.approx(
        {"mean": 0.345, "low": 0.325, "high": 0.365}
    )
    assert table["systems"][0]["coverage"] == {"10": 0.25, "20": 0.5}
    assert values["retrieval"][0]["top5"]["mean"] == 0.8
    assert values["timings"][1] == {"stage": "text", "seconds": 0.4, "reused": True}
    assert values["format"] == 1
    assert not {"gallery", "failures"} & set(values)
    assert table["systems"][1]["tests"]["mrr@10"] == {
        "p": 0.001,
        "p_holm": 0.0042,
        "detectable": 0.023,
    }
    assert table["systems"][0]["shown"]["novelty"] == {
        "10": {"mean": 7.25, "low": 7, "high": 8},
        "20": None,
    }
    assert table["exposure"][0]["shown"]["text only"] == {"Acme": 0.75}
    assert table["slices"][1]["systems"]["full model"]["mean"] == 0.5
