"""A training configuration, and how it is read from a TOML file."""

import difflib
import os
import tomllib
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from recsys.config.sections import (
    AlignmentConfig,
    DataConfig,
    EvaluationConfig,
    FusionConfig,
    IdentificationConfig,
    OffersConfig,
    RankerConfig,
    Section,
    SplitConfig,
    UserConfig,
)
from recsys.errors import ConfigError
from text.config import TextConfig
from vision.config import VisionConfig
from vision.tuning.space import SearchSpace

TABLES = ("items", "events", "photos", "relations")
Table = TypeVar("Table", bound=BaseModel)


class TrainConfig(Section):
    """One training run, as read from a TOML file."""

    name: str = Field("shop", description="Name of this run in reports.")
    seed: int = Field(0, ge=0, description="Random seed of the whole run.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Device to train on; auto is CUDA where there is a card."
    )
    data: DataConfig = Field(DataConfig(), description="Tables of the shop.")
    split: SplitConfig = Field(SplitConfig(), description="Events to hold out.")
    vision: VisionConfig = Field(
        VisionConfig(), description="Network and training of the vision tower."
    )
    text: TextConfig = Field(TextConfig(), description="Network and training of the text encoder.")
    alignment: AlignmentConfig = Field(
        AlignmentConfig(), description="Training of both towers together."
    )
    fusion: FusionConfig = Field(FusionConfig(), description="Item fusion and its training.")
    users: UserConfig = Field(UserConfig(), description="User encoder and its training.")
    ranker: RankerConfig = Field(RankerConfig(), description="Ranker and its training.")
    offers: OffersConfig = Field(OffersConfig(), description="Items that each source offers.")
    identification: IdentificationConfig = Field(
        IdentificationConfig(), description="Identification of products on photos."
    )
    evaluation: EvaluationConfig = Field(
        EvaluationConfig(), description="Metrics and comparisons of the report."
    )
    search: SearchSpace | None = Field(
        None, description="Fields of [vision] that `recsys vision tune` tries, with their values."
    )


def load_config(path: str | Path) -> TrainConfig:
    """Return the configuration in a TOML file, the paths of tables made absolute.

    Raises:
        ConfigError: If the file cannot be read, or lists every key and value that is wrong, with
            the nearest known key for each unknown one.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text("utf-8-sig"))  # editors of Windows write the mark
    except OSError as error:
        raise ConfigError(f"configuration {path} must be a readable file: {error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration {path} must be TOML: {error}") from error
    try:
        config = TrainConfig.model_validate(values)
    except ValidationError as error:
        problems = "\n".join(f"  {_problem(one)}" for one in error.errors())
        raise ConfigError(
            f"configuration {path} has {error.error_count()} problem(s):\n{problems}"
        ) from error
    folder = path.resolve().parent
    return config.model_copy(
        update={
            "data": _resolve(config.data, folder, *TABLES, "images_root"),
            "fusion": _resolve(config.fusion, folder, "teacher"),
        }
    )


def _resolve(table: Table, folder: Path, *names: str) -> Table:
    paths = {
        name: str(_locate(folder, value))
        for name in names
        if (value := getattr(table, name)) is not None
    }
    return table.model_copy(update=paths)


def _locate(folder: Path, name: str) -> Path:
    """Return a path relative to ``folder``; ``~`` is the home folder unless such a name exists."""
    exists = (folder / Path(name).parts[0]).exists() if name else False
    return folder / (name if exists else os.path.expanduser(name))


def _problem(error: Any) -> str:
    """Return one line for one of pydantic's errors."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{where}: {error['msg']}, got {error['input']!r}"
    *sections, key = error["loc"]
    near = difflib.get_close_matches(str(key), _known_keys(sections), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_known_keys(sections))}"
    return f"{where}: unknown key; {hint}"


def _known_keys(sections: list[str]) -> list[str]:
    model: type[BaseModel] = TrainConfig
    for section in sections:
        field = model.model_fields.get(section)
        if field is None or not isinstance(field.annotation, type):
            return []
        model = field.annotation
    return sorted(model.model_fields)
