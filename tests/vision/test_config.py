"""A configuration is checked as a whole, before anything is trained."""

import pytest
from pydantic import ValidationError

from vision.config import VisionConfig


def test_every_field_has_a_description() -> None:
    undescribed = [
        name for name, field in VisionConfig.model_fields.items() if not field.description
    ]
    assert undescribed == []


def test_a_misspelt_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="epoch\n"):
        VisionConfig.model_validate({"epoch": 3})


def test_all_problems_are_reported_together() -> None:
    with pytest.raises(ValidationError) as caught:
        VisionConfig.model_validate(
            {"epochs": 0, "augmentation": "wild", "target_weights": {"fine": -1.0}, "dropout": 1.0}
        )
    fields = {error["loc"][0] for error in caught.value.errors()}
    assert fields == {"epochs", "augmentation", "target_weights", "dropout"}


def test_a_negative_number_of_frozen_stages_is_refused() -> None:
    for known in (0, 3, "all"):
        VisionConfig.model_validate({"transfer": {"frozen_stages": known}})
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        VisionConfig.model_validate({"transfer": {"frozen_stages": -1}})


def test_a_start_size_above_the_training_size_is_refused() -> None:
    VisionConfig(size=64, train_size=48, start_size=48)
    with pytest.raises(ValidationError, match="start_size must be at most 48, the size of train"):
        VisionConfig(size=64, train_size=48, start_size=64)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        VisionConfig().epochs = 3  # type: ignore[misc]


def test_contradicting_options_are_refused() -> None:
    with pytest.raises(ValidationError, match="pictures of one class each, got cutmix"):
        VisionConfig.model_validate({"cutmix": 1.0, "objective": {"metric": {"supcon": 1.0}}})
    with pytest.raises(ValidationError, match="low-rank updates alone"):
        VisionConfig.model_validate({"transfer": {"lora_rank": 4, "layer_decay": 0.7}})
