"""The training configuration: one TOML file, all of its problems reported at once."""

import difflib
import tomllib
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from recsys.errors import ConfigError
from text.config import TextConfig
from vision.config import VisionConfig
from vision.test_time import Views
from vision.training.presets import get_augmentation
from vision.tuning.space import SearchSpace

Table = TypeVar("Table", bound=BaseModel)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(_Model):
    """Where the three tables are. Paths are relative to the configuration file."""

    items: str | None = Field(
        None,
        description="Items table: Parquet, CSV or NDJSON; a file or a glob. Needed, unless "
        "tables are passed to `recsys.train`.",
    )
    events: str | None = Field(None, description="Events table, if the shop has one.")
    photos: str | None = Field(None, description="Customers' photos table, if the shop has one.")
    images_root: str | None = Field(
        None, description="Folder that picture paths are relative to; the items' folder if unset."
    )
    target_kinds: tuple[str, ...] = Field(
        (), description="Event kinds to recommend for; empty: purchases if there are any, else all."
    )


class SplitConfig(_Model):
    """What is held out, in time."""

    at: datetime | None = Field(
        None,
        description="Events at or after it are the test set; one horizon before the end if unset.",
    )
    horizon: str = Field(
        "30d",
        description="Window that the ranker learns to predict, as a polars duration (30d, 1mo).",
    )
    n_cuts: int = Field(
        3, ge=2, le=24, description="Snapshots the ranker learns from, the last one for validation."
    )


class RankerConfig(_Model):
    """The ranking network and its training."""

    hidden: int = Field(16, ge=1, description="Width of the hidden layers.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Dropout of the hidden layers.")
    n_queries: int = Field(5_000, ge=1, description="Users asked at each snapshot, at most.")
    n_candidates: int = Field(600, ge=2, description="Candidates per training query.")
    epochs: int = Field(20, ge=1, description="Passes over the snapshots at most.")
    patience: int | None = Field(4, ge=1, description="Epochs without a better validation loss.")
    batch_size: int = Field(64, ge=1, description="Queries per step.")
    learning_rate: float = Field(3e-3, gt=0, description="Of AdamW.")
    weight_decay: float = Field(1e-3, ge=0, description="Of AdamW.")
    discovery_weight: float = Field(
        1.0, ge=0, description="Weight of ranking what the user has not taken, beside ranking all."
    )
    hide_events: float = Field(
        0.1, ge=0, lt=1, description="Share of candidates shown to training as if they were new."
    )


class AlignmentConfig(_Model):
    """Training both towers together on pictures and titles, before they are fused."""

    epochs: int = Field(0, ge=0, description="Passes over the pictures; 0 leaves the towers alone.")
    batch_size: int = Field(512, ge=2, description="Pictures per step, each other's negatives.")
    learning_rate: float = Field(1e-3, gt=0, description="Peak rate of the text encoder's AdamW.")
    picture_learning_rate: float = Field(5e-4, gt=0, description="That of the vision tower.")
    weight_decay: float = Field(0.05, ge=0, description="Of AdamW; not on norms and biases.")
    temperature: float = Field(
        0.05, gt=0, description="What cosines are divided by at first; it is learned."
    )
    head_weight: float = Field(
        0.2, ge=0, description="Weight of the vision tower's classifiers, which go on learning."
    )
    word_dropout: float = Field(0.1, ge=0, lt=1, description="Share of a title's words left out.")
    augmentation: str = Field(
        "light", description="Of the pictures; colours that titles name must stay as they are."
    )
    # Another size than the tower's costs recall: it then meets things larger than it has learned.
    train_size: int | None = Field(
        None,
        ge=16,
        description="Side of training pictures; unset, the tower's own, at which it embeds.",
    )
    start_size: int | None = Field(
        None, ge=16, description="Side in the first epoch, growing; networks of fixed size: unset."
    )
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        "auto", description="auto is bf16-mixed where the hardware computes in it, else 32-true."
    )

    @field_validator("augmentation")
    @classmethod
    def _known(cls, preset: str) -> str:
        get_augmentation(preset)
        return preset


class FusionConfig(_Model):
    """The item fusion and its training; the weights multiply mean losses of order 1."""

    kind: Literal["gated", "concat", "attention"] = Field(
        "gated", description="How modalities are combined."
    )
    dim: int = Field(256, ge=2, description="Size D of the item embedding.")
    hidden: int = Field(256, ge=1, description="Width of each modality's projection MLP.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout of inputs and projections.")
    epochs: int = Field(
        20, ge=1, description="Passes over the items; a small catalogue is one of about 1,000."
    )
    batch_size: int = Field(256, ge=2, description="Items, and photos and pairs, per step.")
    learning_rate: float = Field(2e-3, gt=0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(0.01, ge=0, description="Of AdamW.")
    temperature: float = Field(0.1, gt=0, description="Of the contrastive losses; not learned.")
    view_weight: float = Field(0.5, ge=0, description="Of one view of an item finding another.")
    photo_weight: float = Field(1.0, ge=0, description="Of a photo finding its item.")
    head_weight: float = Field(0.5, ge=0, description="Of telling the item's class per target.")
    reconstruction_weight: float = Field(
        3.0, ge=0, description="Of reading each modality's input back, linearly."
    )
    pair_weight: float = Field(0.5, ge=0, description="Of items that the same users take.")
    modality_dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of items that are told from one modality less."
    )
    teacher: str | None = Field(
        None,
        description="Parquet file or folder of embeddings by item id, such as `recsys embed` "
        "writes, to learn similarities from.",
    )
    distillation_weight: float = Field(
        1.0, ge=0, description="Of items being as similar as to the teacher."
    )


class UserConfig(_Model):
    """The user encoder and its training."""

    width: int = Field(64, ge=1, description="Width of the transformer; a multiple of heads.")
    heads: int = Field(4, ge=1, description="Attention heads.")
    depth: int = Field(0, ge=0, description="Transformer layers; 0 has the regression alone.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout of the transformer.")
    history_length: int = Field(
        100, ge=1, description="Latest events that the regression of taste reads."
    )
    recent_length: int = Field(20, ge=1, description="Latest events that the transformer reads.")
    horizon_days: float = Field(
        14.0, ge=0, description="Targets are drawn from this many days; 0: the next moment only."
    )
    n_targets: int = Field(4, ge=1, description="Targets drawn for each history and epoch.")
    histories_per_user: int = Field(
        4, ge=1, description="Histories drawn from each user and epoch, so heavy users do not rule."
    )
    kind_weights: dict[str, float] = Field(
        {"view": 0.3, "click": 0.3, "cart": 0.6},
        description="Weight of a target by its event kind; kinds not named weigh 1.",
    )
    full_softmax_items: int = Field(
        10_000, ge=1, description="Catalogues up to this size are ranked whole in the loss."
    )
    n_negatives: int = Field(4_096, ge=1, description="Negatives per step in larger catalogues.")
    validation_share: float = Field(
        0.1, gt=0, lt=1, description="Last share of the events in time, held out to stop early."
    )
    epochs: int = Field(30, ge=1, description="Passes over the users at most.")
    patience: int | None = Field(4, ge=1, description="Epochs without a better validation loss.")
    batch_size: int = Field(256, ge=1, description="Histories per step.")
    learning_rate: float = Field(1e-2, gt=0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(0.01, ge=0, description="Of AdamW.")
    precision: Literal["32-true", "bf16-mixed"] = Field(
        "32-true", description="Lightning's name of the number format."
    )


class IdentificationConfig(_Model):
    """How photos are looked at, and when a product is named."""

    precision: float = Field(
        0.95, gt=0, lt=1, description="Share of right answers that thresholds are chosen for."
    )
    unknown_share: float = Field(
        0.1, gt=0, lt=1, description="Share of photos to expect of things not in the catalogue."
    )
    views: Views = Field(
        "crops", description="Views of a photo to average: one, flip (2) or crops (12)."
    )


class EvaluationConfig(_Model):
    """What `recsys evaluate` and the report compute."""

    k: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (10, 20), min_length=1, description="Cut-offs of the metrics."
    )
    scopes: tuple[Literal["all", "new", "cold"], ...] = Field(
        ("all", "new", "cold"),
        description="All answers; only items the user had not met; only items without events.",
    )
    ablations: bool = Field(True, description="Also train with titles only and pictures only.")


class TrainConfig(_Model):
    """One training run, as read from a TOML file."""

    name: str = Field("shop", description="What reports call this run.")
    seed: int = Field(0, ge=0, description="Of everything random.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where to train; auto takes CUDA where there is one."
    )
    data: DataConfig = Field(DataConfig(), description="The shop's tables.")
    split: SplitConfig = Field(SplitConfig(), description="What is held out.")
    vision: VisionConfig = Field(VisionConfig(), description="The vision tower.")
    text: TextConfig = Field(TextConfig(), description="The text encoder.")
    alignment: AlignmentConfig = Field(
        AlignmentConfig(), description="Pictures and titles brought together."
    )
    fusion: FusionConfig = Field(FusionConfig(), description="The item space.")
    users: UserConfig = Field(UserConfig(), description="The user encoder.")
    ranker: RankerConfig = Field(RankerConfig(), description="The ranker.")
    identification: IdentificationConfig = Field(
        IdentificationConfig(), description="Products on photos."
    )
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="The report.")
    search: SearchSpace | None = Field(
        None, description="Fields of [vision] that `recsys vision tune` tries, and their values."
    )


def load_config(path: str | Path) -> TrainConfig:
    """Return the configuration in a TOML file, the paths of tables made absolute.

    Raises:
        ConfigError: If the file cannot be read, or lists every key and value that is wrong, with
            the nearest known key for each unknown one.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text())
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
        name: str(folder / Path(value).expanduser())
        for name in names
        if (value := getattr(table, name)) is not None
    }
    return table.model_copy(update=paths)


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
