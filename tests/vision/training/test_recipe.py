"""What fine-tuning does where the configuration leaves it open."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vision.config import TransferConfig, VisionConfig
from vision.dataset import Samples
from vision.training.recipe import (
    ENOUGH_PER_CLASS,
    FEWEST_EPOCHS,
    MOST_EPOCHS,
    decide_recipe,
)

LITE = VisionConfig(backbone="tf_efficientnet_lite0", pretrained=True)


def pictures(count: int, *, classes: int = 10) -> Samples:
    codes = np.zeros(count, dtype=np.int64)
    names = {"coarse": ["one"], "fine": [str(code) for code in range(classes)]}
    return Samples([Path()] * count, {"coarse": codes, "fine": codes}, names)


@pytest.mark.parametrize(
    ("count", "epochs"), [(0, MOST_EPOCHS), (4_000, 10), (100_000, FEWEST_EPOCHS)]
)
def test_more_pictures_are_seen_less_often(count: int, epochs: int) -> None:
    assert decide_recipe(LITE, pictures(count)).epochs == epochs


@pytest.mark.parametrize(("missing", "heads"), [(0, "random"), (1, "fitted")])
def test_heads_are_fitted_where_the_largest_target_has_few_pictures_per_class(
    missing: int, heads: str
) -> None:
    samples = pictures(ENOUGH_PER_CLASS * 10 - missing, classes=10)
    assert decide_recipe(LITE, samples).transfer.heads == heads


def test_crops_are_smaller_than_whole_pictures() -> None:
    decided = decide_recipe(LITE, pictures(10))
    assert (decided.size, decided.train_size) == (192, 160)
    small = decide_recipe(LITE.model_copy(update={"size": 96}), pictures(10))
    assert (small.size, small.train_size) == (96, 80)
    growing = LITE.model_copy(update={"start_size": 64})
    assert decide_recipe(growing, pictures(10)).train_size is None


def test_first_stages_and_number_format_follow_from_the_network() -> None:
    lite = decide_recipe(LITE, pictures(1_000))
    assert lite.transfer == TransferConfig(freeze_norms=True, frozen_stages=3, layer_decay=0.85)
    assert lite.precision == ("auto" if torch.cuda.is_available() else "32-true")
    other = VisionConfig(backbone="resnet18", pretrained=True)
    decided = decide_recipe(other, pictures(1_000))
    assert decided.transfer.frozen_stages == 0
    assert decided.precision == "auto"


def test_what_the_configuration_sets_is_kept() -> None:
    chosen = VisionConfig(
        backbone="tf_efficientnet_lite0",
        pretrained=True,
        size=96,
        train_size=96,
        epochs=30,
        batch_size=64,
        learning_rate=1e-3,
        precision="auto",
        transfer=TransferConfig(freeze_norms=True),
    )
    assert decide_recipe(chosen, pictures(1_000)) == chosen
    once = decide_recipe(LITE, pictures(1_000))
    assert decide_recipe(once, pictures(50)) == once


@pytest.mark.parametrize("pretrained", [False, "someone/weights"])
def test_other_weights_leave_the_configuration_as_it_is(pretrained: bool | str) -> None:
    config = VisionConfig(backbone="resnet18", pretrained=pretrained)
    assert decide_recipe(config, pictures(1_000)) == config
