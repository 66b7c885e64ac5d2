import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from recsys.config import TrainConfig, load_config, write_config
from recsys.errors import ConfigError, MissingExtraError

ROOT = Path(__file__).parents[2]


def write(folder: Path, text: str) -> Path:
    path = folder / "shop.toml"
    path.write_text(text)
    return path


def test_the_smallest_configuration_is_one_items_table(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, '[data]\nitems = "items.csv"\n'))
    assert config.data.items == str(tmp_path / "items.csv")
    assert config.data.events is None


def test_absolute_and_home_paths_stay_what_they_are(tmp_path: Path) -> None:
    text = '[data]\nitems = "/data/items-*.parquet"\nevents = "~/events.csv"\n'
    config = load_config(write(tmp_path, text))
    assert config.data.items == "/data/items-*.parquet"
    assert config.data.events == str(Path("~/events.csv").expanduser())


def test_the_home_of_a_user_who_has_none_is_a_folder_that_is_not_there(
    tmp_path: Path, homeless: None
) -> None:
    config = load_config(write(tmp_path, '[data]\nitems = "~/items.csv"\n'))
    assert config.data.items == str(tmp_path / "~/items.csv")


def test_a_name_with_a_tilde_that_exists_is_that_name(tmp_path: Path) -> None:
    (tmp_path / "~root").mkdir()
    text = '[data]\nitems = "~root/*.csv"\nevents = "~no-such-user/events.csv"\n'
    config = load_config(write(tmp_path, text))
    assert config.data.items == str(tmp_path / "~root/*.csv")
    assert config.data.events == str(tmp_path / "~no-such-user/events.csv")


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "\ufeffseed = 3\n")).seed == 3


def test_event_kinds_are_read_as_those_of_the_events_table(tmp_path: Path) -> None:
    text = '[data]\ntarget_kinds = [" Purchase"]\n[users.kind_weights]\nVIEW = 0.5\n'
    config = load_config(write(tmp_path, text))
    assert config.data.target_kinds == ("purchase",)
    assert config.users.kind_weights == {"view": 0.5}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda one: one.stem
)
def test_a_written_configuration_is_read_back_as_it_was(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    assert load_config(write(tmp_path, write_config(config))) == config


def test_what_is_as_by_default_is_not_written(tmp_path: Path) -> None:
    assert write_config(TrainConfig()) == ""
    text = """
    [split]
    at = 2025-11-01T00:00:00Z
    [users]
    depth = 1
    epochs = 30
    kind_weights = { view = 0.5 }
    [rules]
    diversity = 0.3
    block = [{ category = "a \\"quoted\\" one" }]
    [search.transfer.layer_decay]
    choices = [0.5, 1.0]
    """
    config = load_config(write(tmp_path, text))
    written = write_config(config)
    assert load_config(write(tmp_path, written)) == config
    assert "epochs" not in written


def test_a_configuration_that_toml_cannot_say_is_not_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endless = TrainConfig.model_validate({"users": {"patience": None}})
    with pytest.raises(ConfigError, match="must not have None where the default is another value"):
        write_config(endless)
    monkeypatch.setitem(sys.modules, "tomli_w", None)
    with pytest.raises(MissingExtraError, match=r"vitrine-recsys\[search\]"):
        write_config(TrainConfig())


def test_all_problems_are_reported_at_once_with_the_nearest_key(tmp_path: Path) -> None:
    text = '[data]\nitems = "i.csv"\n[vision]\nepoch = 3\n[ranker]\nhidden = 0\n[splitt]\n'
    with pytest.raises(ConfigError, match=r"has 3 problem\(s\)") as caught:
        load_config(write(tmp_path, text))
    message = str(caught.value)
    assert "vision.epoch: unknown key; did you mean 'epochs'?" in message
    assert "ranker.hidden" in message
    assert "got 0" in message
    assert "splitt: unknown key; did you mean 'split'?" in message


def test_tables_that_will_be_passed_to_train_need_not_be_named(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, 'name = "x"\n')).data.items is None


def test_the_time_of_an_export_needs_a_time_zone(tmp_path: Path) -> None:
    for value in ('"2026-11-27T02:00:00Z"', "2026-11-27T03:00:00+01:00"):
        text = f'[data]\nitems = "items.csv"\nas_of = {value}\n'
        as_of = load_config(write(tmp_path, text)).data.as_of
        assert as_of == datetime(2026, 11, 27, 2, tzinfo=UTC)
    with pytest.raises(ConfigError, match=r"data\.as_of: Input should have timezone info"):
        load_config(write(tmp_path, "[data]\nas_of = 2026-11-27T02:00:00\n"))


@pytest.mark.parametrize("text", ["[data", 'items = "\n'])
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="must be TOML"):
        load_config(write(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be a readable file"):
        load_config(tmp_path / "nothing.toml")


@pytest.mark.parametrize(
    "path",
    [*sorted((ROOT / "configs").glob("*.toml")), ROOT / "recsys/cli/demo.toml"],
    ids=lambda p: p.name,
)
def test_every_configuration_that_we_ship_is_valid(path: Path) -> None:
    load_config(path)


def test_cut_offs_of_metrics_must_be_positive_and_there(tmp_path: Path) -> None:
    for cut_offs in ("[]", "[0, 10]"):
        path = tmp_path / "shop.toml"
        path.write_text(f'[data]\nitems = "items.parquet"\n[evaluation]\nk = {cut_offs}\n')
        with pytest.raises(ConfigError, match=r"evaluation\.k"):
            load_config(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("width = 30\nheads = 4", "heads must divide width, got 4 and 30"),
        ("kind_weights = { view = -0.5 }", r"users\.kind_weights\.view: .*equal to 0, got -0.5"),
    ],
)
def test_numbers_that_the_user_encoder_cannot_be_built_with_are_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, f"[users]\n{text}\n"))


def test_a_fold_must_be_one_of_the_folds(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "[split]\nfolds = 3\nfold = 2\n")).split.fold == 2
    for text, message in (
        ("folds = 3\nfold = 3", "fold must be below folds, got 3 of 3"),
        ("folds = 1", r"split\.folds"),
        ("fold = -1", r"split\.fold"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(write(tmp_path, f"[split]\n{text}\n"))


def inner_models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from inner_models(part)


def all_models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for inner in inner_models(field.annotation):
            yield from all_models(inner)


def test_descriptions_of_all_fields_stand_alone() -> None:
    models = set(all_models(TrainConfig))
    assert {model.__module__ for model in models} >= {
        "recsys.config.loading",
        "recsys.config.sections",
        "vision.config",
        "text.config",
    }
    described: dict[str, str] = {}
    for model in models:
        for name, field in model.model_fields.items() if not model.__pydantic_root_model__ else ():
            where, text = f"{model.__module__}.{model.__name__}.{name}", field.description
            assert text, f"{where} has no description"
            assert text not in described, f"{where} has the description of {described[text]}"
            assert text.endswith("."), f"{where}: {text}"
            assert text[0].isupper() or text[0].isdigit(), f"{where}: {text}"
            assert len(text.split()) >= 3, f"{where}: {text}"
            assert not text.startswith("Of "), f"{where}: {text}"
            described[text] = where
    assert len(described) > 150


@pytest.mark.parametrize("text", ["inf", "nan", "1e300"])
def test_numbers_that_training_cannot_compute_with_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "shop.toml"
    path.write_text(f'name = "shop"\n[users]\nhorizon_days = {text}\n')
    with pytest.raises(ConfigError, match=r"users\.horizon_days"):
        load_config(path)
