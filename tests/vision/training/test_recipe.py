"""What fine-tuning does where the configuration leaves it open."""

import pytest
import torch

from vision.config import TransferConfig, VisionConfig
from vision.training.recipe import FEWEST_EPOCHS, MOST_EPOCHS, decide_recipe

LITE = VisionConfig(backbone="tf_efficientnet_lite0", pretrained=True)


@pytest.mark.parametrize(
    ("pictures", "epochs"), [(0, MOST_EPOCHS), (3_000, 10), (1_000_000, FEWEST_EPOCHS)]
)
def test_more_pictures_are_seen_less_often(pictures: int, epochs: int) -> None:
    assert decide_recipe(LITE, pictures, validated=False).epochs == epochs


def test_training_stops_early_only_where_it_can_be_validated() -> None:
    assert decide_recipe(LITE, 3_000, validated=False).patience is None
    assert decide_recipe(LITE, 3_000, validated=True).patience == 5


def test_first_stages_and_number_format_follow_from_the_network() -> None:
    lite = decide_recipe(LITE, 1_000, validated=False)
    assert lite.transfer == TransferConfig(
        heads="fitted", freeze_norms=True, frozen_stages=3, layer_decay=0.8
    )
    assert lite.precision == ("auto" if torch.cuda.is_available() else "32-true")
    other = VisionConfig(backbone="resnet18", pretrained=True)
    decided = decide_recipe(other, 1_000, validated=False)
    assert decided.transfer.frozen_stages == 0
    assert decided.precision == "auto"


def test_what_the_configuration_sets_is_kept() -> None:
    chosen = VisionConfig(
        backbone="tf_efficientnet_lite0",
        pretrained=True,
        size=96,
        epochs=30,
        learning_rate=1e-3,
        patience=7,
        precision="auto",
        transfer=TransferConfig(freeze_norms=True),
    )
    assert decide_recipe(chosen, 1_000, validated=True) == chosen
    once = decide_recipe(LITE, 1_000, validated=True)
    assert decide_recipe(once, 50_000, validated=False) == once


@pytest.mark.parametrize("pretrained", [False, "someone/weights"])
def test_other_weights_leave_the_configuration_as_it_is(pretrained: bool | str) -> None:
    config = VisionConfig(backbone="resnet18", pretrained=pretrained)
    assert decide_recipe(config, 1_000, validated=True) == config
