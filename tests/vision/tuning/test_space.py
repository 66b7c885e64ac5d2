"""A search space is read from TOML and checked against the fields of the configuration."""

import tomllib

import pytest
from pydantic import ValidationError

from vision.config import VisionConfig
from vision.tuning.space import Bounds, Choices, Range, SearchSpace, resolve_space, with_values

CONFIG = VisionConfig(size=64)


def read(text: str) -> SearchSpace:
    return SearchSpace.model_validate(tomllib.loads(text))


def test_ranges_and_choices_get_the_type_of_their_field() -> None:
    space = read("""
        learning_rate = {low = 1e-4, high = 3e-3, log = true}
        mixup = {low = 0, high = 1}
        epochs = {low = 2, high = 5}
        augmentation = {choices = ["photo", "strong"]}
        pretrained = {choices = [true, "weights"]}
    """)
    resolved = resolve_space(space, CONFIG)
    assert resolved == {
        "learning_rate": Bounds(1e-4, 3e-3, True),
        "mixup": Bounds(0.0, 1.0, False),
        "epochs": Bounds(2, 5, False),
        "augmentation": ("photo", "strong"),
        "pretrained": (True, "weights"),
    }
    types = {name: [type(value) for value in domain[:2]] for name, domain in resolved.items()}
    assert types["mixup"] == [float, float]
    assert types["epochs"] == [int, int]


def test_fields_of_nested_tables_are_written_with_dots_or_as_tables() -> None:
    dotted = read('"transfer.layer_decay" = {low = 0.5, high = 1.0}')
    table = read("[transfer.layer_decay]\nlow = 0.5\nhigh = 1.0")
    built = SearchSpace({"transfer.layer_decay": Range(low=0.5, high=1.0)})
    assert dotted == table == built
    assert SearchSpace.model_validate(dotted.model_dump()) == dotted


def test_with_values_changes_only_the_named_fields_of_a_copy() -> None:
    got = with_values(CONFIG, {"epochs": 3, "transfer.lora_rank": 4, "pretraining.epochs": 7})
    assert (got.epochs, got.transfer.lora_rank, got.size) == (3, 4, 64)
    assert got.pretraining is not None
    assert (got.pretraining.epochs, got.pretraining.method) == (7, "byol")
    assert CONFIG.pretraining is None


def test_fields_with_names_that_the_user_chose_can_be_searched() -> None:
    space = SearchSpace(
        {
            "target_weights.colour": Range(low=0.5, high=2),
            "objective.metric.supcon": Choices(choices=(0.1, 1.0)),
        }
    )
    assert list(resolve_space(space, CONFIG)) == [
        "target_weights.colour",
        "objective.metric.supcon",
    ]


def test_all_problems_of_a_search_space_are_reported_together() -> None:
    space = read("""
        learning_rat = {low = 1e-4, high = 3e-3}
        dropout = {low = 0.0, high = 1.5}
        epochs = {low = 1.5, high = 3}
        augmentation = {choices = ["photo", "wild"]}
        transfer = {layer_dekay = {low = 0.5, high = 1.0}}
    """)
    with pytest.raises(ValueError, match="does not fit") as caught:
        resolve_space(space, CONFIG)
    for problem in (
        "unknown field learning_rat, did you mean learning_rate?",
        "dropout = 1.5: Input should be less than 1",
        "epochs = 1.5: Input should be a valid integer",
        "augmentation = 'wild': Value error, augmentation must be one of none",
        "unknown field transfer.layer_dekay, did you mean transfer.layer_decay?",
    ):
        assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("epochs = {low = 3, high = 3}", "high must be above low = 3.0, got 3.0"),
        ("dropout = {low = 0, high = 0.5, log = true}", "low must be above 0 where log is true"),
        ("epochs = {choices = []}", "at least 1 item"),
        ("epochs = {low = 3}", r"epochs\.range\.high\n  Field required"),
        ("epochs = {low = 3, high = 4, step = 2}", "Extra inputs are not permitted"),
        ("epochs = 3", r"valid dictionary or instance of Range"),
        ("", "at least 1 item"),
    ],
)
def test_a_bad_table_is_refused_with_one_error(text: str, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem) as caught:
        read(text)
    assert caught.value.error_count() == 1, "only errors of the kind that was meant"
