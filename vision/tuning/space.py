"""The search space of a hyperparameter search, as part of a configuration file."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, NamedTuple, Self, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    RootModel,
    Tag,
    ValidationError,
    model_validator,
)

from vision.config import PretrainingConfig, VisionConfig
from vision.errors import InvalidArgumentError

Value: TypeAlias = bool | int | float | str


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Range(_Table):
    """Numbers from low to high, both included; integers if the field is an integer."""

    low: float = Field(description="Smallest value to try.")
    high: float = Field(description="Largest value to try.")
    log: bool = Field(
        default=False, description="Whether values are drawn evenly on a logarithmic scale."
    )

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if self.low >= self.high:
            raise InvalidArgumentError(f"high must be above low = {self.low}, got {self.high}")
        if self.log and self.low <= 0:
            raise InvalidArgumentError(f"low must be above 0 where log is true, got {self.low}")
        return self


class Choices(_Table):
    """A few unordered values."""

    choices: tuple[Value, ...] = Field(min_length=1, description="Values to choose from.")


def _kind(table: Any) -> str:
    """Return the kind that a table is meant to be, so that only errors of this kind are shown."""
    chosen = isinstance(table, Choices) or (isinstance(table, Mapping) and "choices" in table)
    return "choices" if chosen else "range"


Domain: TypeAlias = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")], Discriminator(_kind)
]


class SearchSpace(RootModel[Annotated[dict[str, Domain], Field(min_length=1)]]):
    """A range or a list of choices for each searched field of a ``VisionConfig``.

    A field of a nested table is written as in TOML, ``[search.transfer.layer_decay]``, or with a
    dotted name, ``transfer.layer_decay``. The root always has dotted names.
    """

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _flatten(cls, tables: Any) -> Any:
        return dict(_leaves(tables)) if isinstance(tables, Mapping) else tables


def _leaves(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and content of every field, descending into nested tables."""
    own = Range.model_fields.keys() | Choices.model_fields.keys()
    for name, inner in tables.items():
        if isinstance(inner, Mapping) and inner and not inner.keys() & own:
            yield from _leaves(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, inner


class Bounds(NamedTuple):
    """A range whose numbers have the type of the field."""

    low: float  # an int if the field is an integer
    high: float
    log: bool


Resolved: TypeAlias = dict[str, Bounds | tuple[Value, ...]]


def resolve_space(space: SearchSpace, config: VisionConfig) -> Resolved:
    """Return the bounds or choices of every field, after checking them with this configuration.

    Raises:
        InvalidArgumentError: If a field does not exist or does not accept a value. The message
            lists all such fields.
    """
    resolved: Resolved = {}
    problems = []
    for name, domain in space.root.items():
        try:
            if isinstance(domain, Choices):
                resolved[name] = tuple(_accepted(config, name, one) for one in domain.choices)
            else:
                low, high = (_accepted(config, name, end) for end in (domain.low, domain.high))
                resolved[name] = Bounds(low, high, domain.log)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise InvalidArgumentError(f"search space does not fit VisionConfig: {'; '.join(problems)}")
    return resolved


def _accepted(config: VisionConfig, name: str, value: Value) -> Any:
    """Return the value converted to the type of its field."""
    known = dict(_leaves(VisionConfig(pretraining=PretrainingConfig()).model_dump()))
    # A table that is empty by default has names that the user chooses, such as target_weights.
    if name not in known and known.get(name.rpartition(".")[0]) != {}:
        near = get_close_matches(name, known, n=1)
        raise InvalidArgumentError(
            f"unknown field {name}" + (f", did you mean {near[0]}?" if near else "")
        )
    try:
        changed: Any = with_values(config, {name: value}).model_dump()
    except ValidationError as error:
        raise InvalidArgumentError(f"{name} = {value!r}: {error.errors()[0]['msg']}") from error
    for part in name.split("."):
        changed = changed[part]
    return changed


def with_values(config: VisionConfig, values: Mapping[str, Any]) -> VisionConfig:
    """Return the configuration with these values of fields, given by dotted name.

    Raises:
        pydantic.ValidationError: If a value is not allowed, or the values contradict each other.
    """
    changed = config.model_dump()
    for name, value in values.items():
        *tables, field = name.split(".")
        place = changed
        for table in tables:
            # An optional table that is not set starts with its defaults.
            place[table] = place[table] or {}
            place = place[table]
        place[field] = value
    return VisionConfig.model_validate(changed)
