import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from typer.testing import CliRunner

from recsys.bundle import Bundle
from recsys.cli.app import app
from recsys.cli.training import WORSE
from recsys.config import EvaluationConfig, TrainConfig, load_config
from recsys.data.synthetic import Shop
from recsys.evaluation.page import metrics
from recsys.evaluation.run_report import evaluate
from recsys.pipeline import Run, load_tables
from recsys.training.samples import label_pictures, picture_samples
from tests.later_events import as_recommended, copy_alone
from vision.training.preview import contact_sheet

Ask = Callable[..., Any]
Say = Callable[..., str]


@pytest.fixture
def config(tiny_config: TrainConfig, tiny_shop: Shop, tmp_path: Path) -> Path:
    """The tiny shop's configuration, evaluated in one scope and without ablations."""
    text = (tiny_shop.folder / "tiny.toml").read_text()
    for table in ("items", "events", "photos"):
        text = text.replace(f'"{table}.parquet"', f'"{tiny_shop.folder / table}.parquet"')
    text = text.replace('"images"', f'"{tiny_shop.images}"')
    path = tmp_path / "shop.toml"
    path.write_text(text + '[evaluation]\nscopes = ["all"]\nablations = false\n')
    return path


def without_time(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "created_at"}


def test_training_again_skips_every_stage_and_writes_the_report(
    tiny_run: Run, config: Path, ask: Ask
) -> None:
    out = tiny_run.bundle.parent
    answer = ask("train", config, "--out", out)
    assert Path(answer["bundle"]) == tiny_run.bundle
    assert Path(answer["report"]) == out / "report.html"
    assert answer["left_out"] == []
    stages = ["vision", "text", "heads", "embeddings", "statistics", "items", "users", "ranker"]
    stages += ["photos", "items-held-out-1", "items-held-out-2", "words"]
    assert list(answer["seconds"]) == stages
    assert (out / "report.html").read_text().lstrip().startswith("<!doctype html>")
    saved = json.loads((out / "metrics.json").read_text())
    assert saved["bundle_version"] == tiny_run.bundle.name
    assert [table["scope"] for table in saved["rankings"]] == ["all"]
    assert [one["stage"] for one in saved["timings"]] == stages


def test_unchanged_stages_are_printed_as_unchanged(tiny_run: Run, config: Path, say: Say) -> None:
    shown = say("train", config, "--out", tiny_run.bundle.parent)
    for stage in ("vision", "text", "embeddings", "items", "users", "ranker"):
        assert f"{stage}: unchanged" in shown
    assert "scope all:" in shown
    assert tiny_run.bundle.name in shown


@pytest.mark.slow
def test_a_search_prints_what_it_found_and_leaves_its_settings_beside_the_bundle(
    tiny_run: Run, config: Path, ask: Ask, say: Say
) -> None:
    out = tiny_run.bundle.parent
    answer = ask("train", config, "--out", out, "--tune", 2)
    found = answer["tuning"]
    assert len(found["trials"]) == 2
    assert found["trials"][0]["values"]["ranker.trees.trees"] == 20
    saved = json.loads((out / "metrics.json").read_text())
    assert saved["tuning"].startswith("2 trials, ")
    assert f"difference {found['gained']:.4f}, standard error" in saved["tuning"]
    shown = say("train", config, "--out", out, "--tune", 2)
    assert f"settings by search: {saved['tuning']}" in shown
    assert str(out / "tuned.toml") in shown
    assert "trial 1 of 2" not in shown  # an earlier run has it


def test_a_search_of_one_trial_is_refused(config: Path, tmp_path: Path, refusal: Say) -> None:
    message = refusal("train", config, "--out", tmp_path / "out", "--tune", 1)
    assert message == (
        "tune must be at least 2 trials, the first with the settings as given, got 1"
    )


def test_a_preview_is_the_contact_sheet_and_trains_nothing(
    config: Path, tmp_path: Path, say: Say
) -> None:
    out = tmp_path / "new" / "sheet.png"
    said = say("train", config, "--preview", out)
    settings = load_config(config)
    dataset = load_tables(settings)
    samples = picture_samples(dataset, label_pictures(dataset)).train
    wanted = contact_sheet(samples, settings.vision, seed=settings.seed)
    with Image.open(out) as picture:
        assert picture.format == "PNG"
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(wanted))
    assert said.startswith("photo augmentation in")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["new", "shop.toml"]


@pytest.mark.parametrize(("suffix", "written"), [(".jpg", "JPEG"), (".PNG", "PNG")])
def test_a_preview_is_written_in_the_format_of_its_name(
    suffix: str, written: str, config: Path, tmp_path: Path, ask: Ask
) -> None:
    out = tmp_path / f"sheet{suffix}"
    assert ask("train", config, "--preview", out) == {"file": str(out)}
    with Image.open(out) as picture:
        assert picture.format == written


# Pillow does not know .txt, and can read .psd but not write it.
@pytest.mark.parametrize("name", ["sheet.txt", "sheet", "sheet.psd"])
def test_a_preview_in_an_unknown_format_is_refused_before_a_table_is_read(
    name: str, tmp_path: Path, refusal: Say
) -> None:
    message = refusal("train", tmp_path / "nothing.toml", "--preview", tmp_path / name)
    assert message == (
        "preview must end in the suffix of an image format that can be written, such as .png, "
        f".jpg or .webp, got {name!r}"
    )


def test_training_needs_a_folder_for_the_bundle(config: Path, refusal: Say) -> None:
    message = refusal("train", config)
    assert message == (
        "--out must name the folder to write the bundle to, unless --preview is given"
    )


def test_training_in_several_processes_is_refused(
    config: Path, tmp_path: Path, refusal: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The environment variables that torchrun sets in each of its processes.
    given = {"RANK": 1, "GROUP_RANK": 0, "LOCAL_RANK": 1, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    given |= {"MASTER_ADDR": "localhost", "MASTER_PORT": 29500}
    given |= {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_MAX_RESTARTS": 0}
    for name, value in given.items():
        monkeypatch.setenv(name, str(value))
    message = refusal("train", config, "--out", tmp_path / "out")
    assert message.startswith("recsys train must run in one process, got 2 from torchrun; train")
    assert "vision.finetuning" in message
    assert "pretrained" in message
    assert not (tmp_path / "out").exists()


def test_a_preview_without_pictures_is_refused(tmp_path: Path, refusal: Say) -> None:
    items = pl.DataFrame({"item_id": ["a", "b"], "title": ["mug", "lamp"]})
    items.write_csv(tmp_path / "items.csv")
    (tmp_path / "shop.toml").write_text('[data]\nitems = "items.csv"\n')
    sheet = tmp_path / "sheet.png"
    message = refusal("train", tmp_path / "shop.toml", "--preview", sheet)
    assert message == "none of 0 pictures can be read"
    assert not sheet.exists()


def test_evaluate_prints_the_numbers_of_the_report(
    tiny_bundle: Path, config: Path, ask: Ask
) -> None:
    settings = load_config(config)
    bundle = Bundle(tiny_bundle)
    wanted = evaluate(bundle, settings.evaluation, title="tiny", dataset=load_tables(settings))
    answer = ask("evaluate", tiny_bundle, "--config", config)
    assert without_time(answer) == without_time(json.loads(json.dumps(metrics(wanted))))
    assert answer["title"] == "tiny"
    assert answer["classification"]


def test_without_a_configuration_every_scope_is_evaluated_but_no_photos(
    tiny_bundle: Path, ask: Ask
) -> None:
    answer = ask("evaluate", tiny_bundle)
    assert [table["scope"] for table in answer["rankings"]] == list(EvaluationConfig().scopes)
    assert answer["title"] == tiny_bundle.name
    assert answer["classification"] == answer["retrieval"] == []


def test_evaluate_prints_one_json_document_when_it_also_writes_the_page(
    tiny_bundle: Path, tmp_path: Path, ask: Ask
) -> None:
    answer = ask("evaluate", tiny_bundle, "--out", tmp_path / "new")
    assert answer["bundle_version"] == tiny_bundle.name
    assert (tmp_path / "new" / "report.html").is_file()


def test_evaluate_writes_the_page_into_the_folder_of_out(
    tiny_bundle: Path, config: Path, tmp_path: Path, say: Say
) -> None:
    shown = say("evaluate", tiny_bundle, "--config", config, "--out", tmp_path)
    assert (tmp_path / "report.html").exists()
    values = json.loads((tmp_path / "metrics.json").read_text())
    ours = values["rankings"][0]["systems"][0]["metrics"]["ndcg@10"]
    assert f"{ours['mean']:.3f}" in shown


@pytest.fixture
def top_sellers(tiny_shop: Shop, tmp_path: Path) -> Path:
    """A list from elsewhere: the same items for everybody, one of which is not in the shop."""
    events = pl.read_parquet(tiny_shop.events)
    best = events["item_id"].value_counts(sort=True)["item_id"].head(5).to_list()
    items = pl.DataFrame({"item_id": ["no-such-item", *best], "rank": range(6)})
    events.select("user_id").unique().join(items, how="cross").write_csv(tmp_path / "top.csv")
    return tmp_path / "top.csv"


def test_other_bundles_and_lists_are_in_the_same_tables(
    tiny_run: Run, config: Path, top_sellers: Path, ask: Ask, say: Say
) -> None:
    asked = ("evaluate", tiny_run.bundle, tiny_run.ablations["text-only"], "--lists", top_sellers)
    (table,) = ask(*asked, "--config", config)["rankings"]
    found = {row["name"]: row for row in table["systems"]}
    assert found[str(tiny_run.ablations["text-only"])]["role"] == "bundle"
    listed = found[str(top_sellers)]
    assert listed["role"] == "list"
    assert listed["counts"]["unknown_items"] * 6 == listed["counts"]["rows"]
    shown = say(*asked, "--config", config)
    assert "removed rows:" in shown
    assert "of unknown items" in shown


def test_users_are_grouped_by_a_table_and_exposure_counted_by_any_item_column(
    tiny_bundle: Path, tmp_path: Path, ask: Ask, refusal: Say, tiny_shop: Shop
) -> None:
    ids = pl.read_parquet(tiny_shop.events)["user_id"].unique().sort()
    half = pl.DataFrame(
        {"user_id": ids, "half": [("first", "second")[n % 2] for n in range(len(ids))]}
    )
    half.write_csv(tmp_path / "users.csv")
    asked = ("evaluate", tiny_bundle, "--users", tmp_path / "users.csv", "--exposure-by", "price")
    table = ask(*asked)["rankings"][0]
    groups = [row for row in table["slices"] if row["grouping"] == "half"]
    assert [row["label"] for row in groups] == ["first", "second"]
    assert sum(row["n_users"] for row in groups) == table["n_users"]
    assert [one["column"] for one in table["exposure"]] == ["price"]
    assert "nothing matches" in refusal(*asked[:3], tmp_path / "no.csv")


def test_a_list_or_a_bundle_that_is_given_twice_is_refused(
    tiny_bundle: Path, top_sellers: Path, refusal: Say
) -> None:
    twice = ["--lists", top_sellers, "--lists", top_sellers]
    assert refusal("evaluate", tiny_bundle, *twice).startswith("every list must be given once")
    both = refusal("evaluate", tiny_bundle, tiny_bundle, tiny_bundle)
    assert both.startswith("every bundle must be given once")


def test_training_on_a_missing_table_leaves_no_bundle(
    config: Path, tmp_path: Path, refusal: Say, tiny_shop: Shop
) -> None:
    config.write_text(config.read_text().replace(str(tiny_shop.items), str(tmp_path / "no.csv")))
    assert "nothing matches" in refusal("train", config, "--out", tmp_path / "out")
    assert not list((tmp_path / "out").glob("[!.]*"))


def test_training_without_titles_and_pictures_is_refused(tmp_path: Path, refusal: Say) -> None:
    pl.DataFrame({"item_id": ["a", "b"], "price": [1.0, 2.0]}).write_csv(tmp_path / "items.csv")
    (tmp_path / "shop.toml").write_text('[data]\nitems = "items.csv"\n')
    message = refusal("train", tmp_path / "shop.toml", "--out", tmp_path / "out")
    assert message.startswith("tables must have titles or pictures to learn from, got none (vision")
    assert message == refusal("check", tmp_path / "shop.toml", "--out", tmp_path / "quarantine")


def test_a_missing_configuration_is_refused(
    tiny_bundle: Path, tmp_path: Path, refusal: Say
) -> None:
    missing = tmp_path / "nothing.toml"
    for command in (
        ["train", missing, "--out", tmp_path],
        ["evaluate", tiny_bundle, "--config", missing],
    ):
        assert f"configuration {missing} must be a readable file" in refusal(*command)


def test_evaluating_a_folder_without_a_bundle_is_refused(tmp_path: Path, refusal: Say) -> None:
    message = refusal("evaluate", tmp_path)
    assert message == f"{tmp_path} must hold a bundle, found none; train one with `recsys train`"


@pytest.fixture
def runs(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A folder of bundles with the tiny shop's alone."""
    return copy_alone(tiny_bundle, tmp_path / "runs")


@pytest.fixture
def later(tiny_shop: Shop, tmp_path: Path) -> Path:
    """Events of the tiny shop, some of them a month later, and one of an unknown item."""
    events = pl.read_parquet(tiny_shop.events).tail(800)
    month = events.with_columns(pl.col("timestamp") + timedelta(days=31))
    odd = month.head(1).with_columns(item_id=pl.lit("unheard-of"))
    pl.concat([events.tail(10), month, odd]).write_parquet(tmp_path / "later.parquet")
    return tmp_path / "later.parquet"


@pytest.mark.slow
def test_a_refresh_prints_what_was_added_compared_and_decided(
    runs: Path, later: Path, ask: Ask, say: Say
) -> None:
    old = (runs / "latest").resolve()
    answer = ask("refresh", old, "--events", later)
    assert Path(answer["bundle"]) == (runs / "latest").resolve() != old
    assert answer["events"]["unknown_items"] == 1
    shown = say("refresh", old, "--events", later, "--out", runs)
    assert "events: 800 added, 10 in the bundle already, 1 of items that it lacks" in shown
    assert answer["sentence"] in shown
    assert str(runs / "refresh.json") in shown


@pytest.mark.slow
def test_a_refresh_that_ends_in_a_worse_bundle_has_an_exit_status_of_its_own(
    runs: Path, config: Path, tmp_path: Path, say: Say
) -> None:
    before = (runs / "latest").resolve()
    as_recommended(Bundle(runs)).write_csv(tmp_path / "new.csv")
    words = ["refresh", str(runs), "--events", str(tmp_path / "new.csv"), "--config", str(config)]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == WORSE == 3
    assert f"worse: {before.name} stays" in " ".join(result.stdout.split())
    assert (runs / "latest").resolve() == before
    assert "but promotion was forced" in say(*words, "--force")
    assert (runs / "latest").resolve() != before


def test_a_refresh_without_later_events_is_refused(
    runs: Path, tiny_shop: Shop, refusal: Say
) -> None:
    message = refusal("refresh", runs, "--events", tiny_shop.events)
    assert message.startswith("events must have some after those of the bundle, which end at 2025")
