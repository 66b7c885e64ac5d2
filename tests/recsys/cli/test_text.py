from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from recsys.bundle import Bundle
from recsys.config import load_config
from recsys.data.synthetic import Shop
from recsys.pipeline import Run
from recsys.training.labels import item_labels
from recsys.training.pairs import item_pairs
from recsys.training.samples import text_samples
from text.dataset import Samples
from text.networks.build import build_encoder
from text.report import evaluate_encoder, read_report, write_report
from text.report.results import TextReport

Ask = Callable[..., Any]
Say = Callable[..., str]


@pytest.fixture
def config(tiny_shop: Shop, tmp_path: Path) -> Path:
    path = tmp_path / "shop.toml"
    path.write_text(
        f'device = "cpu"\n[data]\nitems = "{tiny_shop.items}"\n[text]\nhidden = 32\nepochs = 2\n'
    )
    return path


@pytest.fixture
def samples(tiny_bundle: Path) -> Samples:
    bundle = Bundle(tiny_bundle)
    assert bundle.split_us is not None
    later = bundle.interactions.where(bundle.interactions.timestamps_us >= bundle.split_us)
    return text_samples(bundle.items, item_labels(bundle.items), item_pairs(later, seed=0))


def figures(report: TextReport) -> dict[str, Any]:
    """Return the JSON value that the command must print for a report."""
    values = asdict(report)
    return {name: values[name] for name in ("searches", "scripts", "targets")}


def test_report_writes_what_evaluate_encoder_measures(
    tiny_bundle: Path, config: Path, samples: Samples, tmp_path: Path, ask: Ask
) -> None:
    out = tmp_path / "report"
    answer = ask("text", "report", tiny_bundle, config, "--out", out)
    wanted = evaluate_encoder(Bundle(tiny_bundle).text, samples)
    assert read_report(out) == wanted
    assert answer == {"report": str(out / "text.html"), **figures(wanted), "before": None}
    assert {"two words", "category", "what goes with it"} <= wanted.searches.keys()


def test_report_shows_the_encoder_before_fine_tuning_beside_it(
    tiny_bundle: Path, config: Path, samples: Samples, tmp_path: Path, ask: Ask, say: Say
) -> None:
    command = ("text", "report", tiny_bundle, config, "--out", tmp_path / "a", "--before")
    answer = ask(*command)
    words = [*samples.texts, *samples.category_texts]
    untrained = build_encoder(load_config(config).text, words, seed=0)
    after, before = (
        evaluate_encoder(encoder, samples) for encoder in (Bundle(tiny_bundle).text, untrained)
    )
    assert answer["before"] == figures(before)
    page = write_report(after, tmp_path / "b", before=before)
    assert Path(answer["report"]).read_text() == page.read_text()
    first, _, second = say(*command).partition("text tower, search by")
    for table, one in ((first, before), (second, after)):
        found = one.searches["two words"]
        assert f"two words │ {found.n_queries} │ {found.hit_rate.mean:.3f} [" in table
        assert f"category_1 │ {one.targets['category_1'].n_texts} │ " in table
    assert second.endswith("text.html")


def test_a_bundle_without_a_text_tower_is_refused(
    tiny_run: Run, config: Path, tmp_path: Path, refusal: Say
) -> None:
    image_only = tiny_run.ablations["image-only"]
    said = refusal("text", "report", image_only, config, "--out", tmp_path / "report")
    assert "has no 'text' part" in said
    assert not (tmp_path / "report").exists()
