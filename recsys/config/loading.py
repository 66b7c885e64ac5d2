"""A training configuration, and how it is read from a TOML file."""

import difflib
import json
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields as fields_of
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from recsys.config.annotation import AnnotationConfig
from recsys.config.ranking import OffersConfig, RankerConfig, UserConfig
from recsys.config.sections import (
    AlignmentConfig,
    DataConfig,
    EvaluationConfig,
    FusionConfig,
    IdentificationConfig,
    Section,
    ServingConfig,
    SplitConfig,
)
from recsys.errors import ConfigError, MissingExtraError
from recsys.rules import NO_RULES, Rules
from text.config import TextConfig
from vision.config import VisionConfig
from vision.tuning.space import SearchSpace

TABLES = ("items", "events", "photos", "relations")
Table = TypeVar("Table", bound=BaseModel)

T = TypeVar("T")

_RULES = TypeAdapter(Rules)
_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")


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
    rules: Rules = Field(NO_RULES, description="Rules by which lists are made of ranked items.")
    annotation: AnnotationConfig = Field(
        AnnotationConfig(), description="Names of what pictures show."
    )
    identification: IdentificationConfig = Field(
        IdentificationConfig(), description="Identification of products on photos."
    )
    serving: ServingConfig = Field(
        ServingConfig(), description="What the bundle carries for a service."
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
    config = _read(path, "configuration", tomllib.loads, TrainConfig, TrainConfig.model_validate)
    folder = path.resolve().parent
    return config.model_copy(
        update={
            "data": _resolve(config.data, folder, *TABLES, "images_root"),
            "fusion": _resolve(config.fusion, folder, "teacher"),
        }
    )


def write_config(config: TrainConfig) -> str:
    """Return the TOML text of a configuration, from which ``load_config`` reads the same one.

    Values that are as by default are left out.

    Raises:
        MissingExtraError: If tomli-w is not installed.
        ConfigError: If a field is None where the default is not, which TOML cannot say.
    """
    try:
        import tomli_w
    except ImportError as error:
        raise MissingExtraError(
            "writing a configuration needs tomli-w: pip install 'vitrine-recsys[search]'"
        ) from error
    values = config.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    text = tomli_w.dumps(values)
    if TrainConfig.model_validate(tomllib.loads(text)) != config:
        raise ConfigError(
            "a configuration that is written to a file must not have None where the default is "
            "another value, such as patience; set a large number instead"
        )
    return text


def load_rules(path: str | Path) -> Rules:
    """Return the rules in a TOML file, or a JSON file by its suffix: the keys of ``[rules]``.

    Raises:
        ConfigError: As for ``load_config``.
    """
    path = Path(path)
    parse = json.loads if path.suffix.lower() == ".json" else tomllib.loads
    return _read(path, "rules", parse, Rules, _RULES.validate_python)


def read_rules(values: Mapping[str, Any]) -> Rules:
    """Return what ``write_rules`` wrote."""
    return _RULES.validate_python(values)


def write_rules(rules: Rules) -> dict[str, Any]:
    """Return rules as JSON values, without those that are as by default."""
    values: dict[str, Any] = _RULES.dump_python(rules, mode="json", exclude_defaults=True)
    return values


def _read(
    path: Path,
    what: str,
    parse: Callable[[str], Any],
    kind: type,
    validate: Callable[[Any], T],
) -> T:
    """Return a validated file.

    Args:
        path: File to read.
        what: Word for it in errors.
        parse: Function from its text to its values.
        kind: Class of the result, whose keys are known.
        validate: Function from the values to the result.

    Raises:
        ConfigError: As for ``load_config``.
    """
    try:
        values = parse(path.read_text("utf-8-sig"))  # editors of Windows write the mark
    except OSError as error:
        raise ConfigError(f"{what} {path} must be a readable file: {error}") from error
    except ValueError as error:  # of TOML, JSON or UTF-8
        form = "JSON" if parse is json.loads else "TOML"
        raise ConfigError(f"{what} {path} must be {form}: {error}") from error
    try:
        return validate(values)
    except ValidationError as error:
        problems = "\n".join(f"  {_problem(one, kind)}" for one in error.errors())
        raise ConfigError(
            f"{what} {path} has {error.error_count()} problem(s):\n{problems}"
        ) from error


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


def _problem(error: Any, kind: type) -> str:
    """Return one line for one of pydantic's errors."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "value_error":  # a sentence of ours, which has the values that it is about
        return f"{where}: {error['ctx']['error']}".removeprefix(": ")
    if error["type"] not in _UNKNOWN_KEY:
        return f"{where}: {error['msg']}, got {error['input']!r}"
    *sections, key = error["loc"]
    known = _known_keys(kind, sections)
    near = difflib.get_close_matches(str(key), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"{where}: unknown key; {hint}"


def _known_keys(kind: type, sections: Sequence[str | int]) -> list[str]:
    """Return the keys of the table at this place, which is in a list where a part is a number."""
    for section in sections:
        hint = None if isinstance(section, int) else get_type_hints(kind).get(section)
        if not isinstance(section, int):
            kind = next((one for one in (hint, *get_args(hint)) if _is_table(one)), object)
    if is_dataclass(kind):
        return sorted(one.name for one in fields_of(kind))
    return sorted(kind.model_fields) if issubclass(kind, BaseModel) else []


def _is_table(hint: Any) -> bool:
    return isinstance(hint, type) and (is_dataclass(hint) or issubclass(hint, BaseModel))
