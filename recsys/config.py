"""The training configuration: one TOML file, all of its problems reported at once."""

import difflib
import os
import tomllib
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from recsys.errors import ConfigError
from text.config import TextConfig
from vision.config import VisionConfig
from vision.test_time import Views
from vision.training.presets import Preset
from vision.tuning.space import SearchSpace

Table = TypeVar("Table", bound=BaseModel)
# An event kind as the events table is read: in lower case, without blanks around it.
Kind = Annotated[str, StringConstraints(strip_whitespace=True, to_lower=True)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(_Model):
    """Where the three tables are. Paths are relative to the configuration file."""

    items: str | None = Field(
        None,
        description="Items table, a file or a glob; unset if tables are passed to train.",
    )
    events: str | None = Field(None, description="Events table, if the shop has one.")
    photos: str | None = Field(None, description="Table of customers' photos, if the shop has one.")
    images_root: str | None = Field(
        None,
        description="Folder that picture paths are relative to; unset is the items table's folder.",
    )
    as_of: AwareDatetime | None = Field(
        None,
        description="Time at which the items table was exported; unset is when its newest file was "
        "written.",
    )
    target_kinds: tuple[Kind, ...] = Field(
        (),
        description="Event kinds to recommend for; empty is purchases if there are any, else all.",
    )


class SplitConfig(_Model):
    """Which events are held out, by their time."""

    at: datetime | None = Field(
        None,
        description="Time from which events are the test set; unset is one horizon before the end.",
    )
    horizon: str = Field(
        "30d",
        description="Period that the ranker learns to predict, such as 30d or 1mo.",
    )
    n_cuts: int = Field(
        3,
        ge=2,
        le=24,
        description="Past moments that the ranker learns from; the last is for validation.",
    )


class RankerConfig(_Model):
    """The ranking network and its training."""

    hidden: int = Field(16, ge=1, description="Width of the ranker's hidden layers.")
    dropout: float = Field(
        0.2, ge=0, lt=1, description="Dropout rate of the ranker's hidden layers."
    )
    n_queries: int = Field(
        5_000, ge=1, description="Maximum number of users to rank for at each past moment."
    )
    n_candidates: int = Field(
        600, ge=2, description="Number of candidates to rank for each training query."
    )
    epochs: int = Field(20, ge=1, description="Maximum number of passes over the ranker's queries.")
    patience: int | None = Field(
        4, ge=1, description="Epochs without progress after which the ranker stops; unset is never."
    )
    batch_size: int = Field(64, ge=1, description="Queries in one training step of the ranker.")
    learning_rate: float = Field(
        3e-3, gt=0, description="Highest AdamW learning rate of the ranker."
    )
    weight_decay: float = Field(1e-3, ge=0, description="AdamW weight decay of the ranker.")
    discovery_weight: float = Field(
        1.0,
        ge=0,
        description="Weight of the loss over items new to the user, beside that over all.",
    )
    hide_events: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of candidates shown to training as if they had no events.",
    )


class AlignmentConfig(_Model):
    """Training of both towers together, on pictures and their titles, before the fusion."""

    epochs: int = Field(
        0, ge=0, description="Passes of both towers over the pictures; 0 leaves the towers alone."
    )
    batch_size: int = Field(
        512, ge=2, description="Pictures in one step of alignment, each other's negatives."
    )
    learning_rate: float = Field(
        1e-3, gt=0, description="Highest AdamW learning rate of the text encoder in alignment."
    )
    picture_learning_rate: float = Field(
        5e-4, gt=0, description="Highest AdamW learning rate of the vision tower in alignment."
    )
    weight_decay: float = Field(
        0.05, ge=0, description="AdamW weight decay during alignment, biases and norms excluded."
    )
    temperature: float = Field(
        0.05, gt=0, description="Initial temperature of cosines, which alignment learns."
    )
    head_weight: float = Field(
        0.2, ge=0, description="Weight of the vision tower's classifiers, which keep learning."
    )
    word_dropout: float = Field(
        0.1, ge=0, lt=1, description="Share of a title's words left out at random."
    )
    augmentation: Preset = Field(
        "light",
        description="Preset of random changes to pictures during alignment; keep the colours.",
    )
    # Another size than the tower's costs recall: it then meets things larger than it has learned.
    train_size: int | None = Field(
        None,
        ge=16,
        description="Side of pictures during alignment in pixels; unset is the tower's own.",
    )
    start_size: int | None = Field(
        None,
        ge=16,
        description="Side in the first epoch of alignment, growing; unset is train_size.",
    )
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        "auto",
        description="Number format of alignment; auto is bf16-mixed where the hardware has it.",
    )


class FusionConfig(_Model):
    """The item fusion and its training; the weights multiply mean losses of order 1."""

    kind: Literal["gated", "concat", "attention"] = Field(
        "gated", description="How the modalities of an item are combined."
    )
    dim: int = Field(256, ge=2, description="Size D of the item embedding.")
    hidden: int = Field(256, ge=1, description="Width of the MLP that projects each modality.")
    dropout: float = Field(
        0.3, ge=0, lt=1, description="Dropout rate of the fusion's inputs and projections."
    )
    epochs: int = Field(
        20, ge=1, description="Passes over the items; a small catalogue is repeated to about 1,000."
    )
    batch_size: int = Field(
        256, ge=2, description="Items in one step of the fusion, and as many photos and pairs."
    )
    learning_rate: float = Field(
        2e-3, gt=0, description="Highest AdamW learning rate of the fusion."
    )
    weight_decay: float = Field(0.01, ge=0, description="AdamW weight decay of the fusion.")
    temperature: float = Field(
        0.1, gt=0, description="Temperature of the fusion's contrastive losses. It is fixed."
    )
    view_weight: float = Field(
        0.5, ge=0, description="Weight of the loss of views that find their item's other views."
    )
    photo_weight: float = Field(
        1.0, ge=0, description="Weight of the loss of photos that find their item."
    )
    head_weight: float = Field(
        0.5, ge=0, description="Weight of the loss of predicting the item's classes."
    )
    reconstruction_weight: float = Field(
        3.0, ge=0, description="Weight of the loss of rebuilding each modality's input linearly."
    )
    pair_weight: float = Field(
        0.5, ge=0, description="Weight of the loss of items that the same users take."
    )
    modality_dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of items that the losses see with one modality removed."
    )
    teacher: str | None = Field(
        None,
        description="Embeddings to learn similarities from: a Parquet file or folder as `recsys "
        "embed` writes it.",
    )
    distillation_weight: float = Field(
        1.0, ge=0, description="Weight of the loss of items that are as similar as for the teacher."
    )


class UserConfig(_Model):
    """The user encoder and its training."""

    width: int = Field(
        64, ge=1, description="Width of the user transformer; a multiple of `heads`."
    )
    heads: int = Field(4, ge=1, description="Attention heads of the user transformer.")
    depth: int = Field(
        0, ge=0, description="Layers of the user transformer; 0 is the regression of taste alone."
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout rate of the user transformer.")
    history_length: int = Field(
        100, ge=1, description="Latest events of a user that the regression of taste reads."
    )
    recent_length: int = Field(
        20, ge=1, description="Latest events of a user that the transformer reads."
    )
    horizon_days: float = Field(
        14.0, ge=0, le=36_500, description="Days in which targets lie; 0 is the next moment only."
    )
    n_targets: int = Field(4, ge=1, description="Targets drawn for each history in each epoch.")
    histories_per_user: int = Field(
        4, ge=1, description="Histories drawn for each user in each epoch, however active."
    )
    kind_weights: dict[Kind, Annotated[float, Field(ge=0)]] = Field(
        {"view": 0.3, "click": 0.3, "cart": 0.6},
        description="Weight of a target by its event kind; other kinds weigh 1.",
    )
    full_softmax_items: int = Field(
        10_000, ge=1, description="Largest catalogue that the loss ranks whole."
    )
    n_negatives: int = Field(
        4_096, ge=1, description="Negatives in each step of a larger catalogue."
    )
    validation_share: float = Field(
        0.1, gt=0, lt=1, description="Share of the events, the latest, held out to stop early."
    )
    epochs: int = Field(30, ge=1, description="Maximum number of passes over the users.")
    patience: int | None = Field(
        4,
        ge=1,
        description="Epochs without progress after which the user encoder stops; unset is never.",
    )
    batch_size: int = Field(
        256, ge=1, description="Histories in one training step of the user encoder."
    )
    learning_rate: float = Field(
        1e-2, gt=0, description="Highest AdamW learning rate of the user encoder."
    )
    weight_decay: float = Field(0.01, ge=0, description="AdamW weight decay of the user encoder.")
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        "32-true",
        description="Number format of the user encoder's training; auto is bf16-mixed where the "
        "hardware has it.",
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads must divide width, got {self.heads} and {self.width}")
        return self


class IdentificationConfig(_Model):
    """How photos are embedded, and when a product is named."""

    precision: float = Field(
        0.95, gt=0, lt=1, description="Share of right answers that thresholds are chosen for."
    )
    unknown_share: float = Field(
        0.1, gt=0, lt=1, description="Expected share of photos of things outside the catalogue."
    )
    views: Views = Field(
        "crops", description="Views of a photo that are averaged: one, flip (2) or crops (12)."
    )


class EvaluationConfig(_Model):
    """Metrics that `recsys evaluate` and the report compute."""

    k: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (10, 20), min_length=1, description="Cut-offs of the metrics."
    )
    scopes: tuple[Literal["all", "new", "cold"], ...] = Field(
        ("all", "new", "cold"),
        description="Answers that count: all, items new to the user, or items without events.",
    )
    exposure_by: tuple[str, ...] = Field(("category",), description="Columns to count exposure by.")
    ablations: bool = Field(True, description="Whether to train on titles or pictures only, too.")


class TrainConfig(_Model):
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
            "data": _resolve(config.data, folder, "items", "events", "photos", "images_root"),
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
