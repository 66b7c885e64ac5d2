"""The tables of a training configuration that are recsys's own."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from vision.test_time import Views
from vision.training.presets import Preset

# An event kind as the events table is read: in lower case, without blanks around it.
Kind = Annotated[str, StringConstraints(strip_whitespace=True, to_lower=True)]


class Section(BaseModel):
    """A table of the configuration; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(Section):
    """Where the tables are. Paths are relative to the configuration file."""

    items: str | None = Field(
        None,
        description="Items table, a file or a glob; unset for labelled photos alone, and if tables "
        "are passed to train.",
    )
    events: str | None = Field(None, description="Events table, if the shop has one.")
    photos: str | None = Field(None, description="Table of customers' photos, if the shop has one.")
    relations: str | None = Field(
        None, description="Table of items that go together, if the shop has one."
    )
    images_root: str | None = Field(
        None,
        description="Folder that picture paths are relative to; unset is the folder of the items "
        "table, or without one of the photos.",
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


class SplitConfig(Section):
    """Which events are held out to test on, and which past moments the ranker learns from."""

    protocol: Literal["auto", "time", "user_time", "leave_one_out", "user_fold"] = Field(
        "auto",
        description="What is held out: the events from one moment on (time), the last fifth of "
        "each user's (user_time), the last of each user's (leave_one_out) or a fold of the users "
        "(user_fold); auto is time, or user_time where nobody who was there before comes back.",
    )
    folds: int = Field(
        5, ge=2, le=1_000, description="Parts into which user_fold divides the users."
    )
    fold: int = Field(
        0, ge=0, description="Part that user_fold holds out, from 0 to one less than folds."
    )
    at: datetime | None = Field(
        None,
        description="Time from which events are the test set; unset is one horizon before the end.",
    )
    horizon: str = Field(
        "auto",
        description="Period that the ranker learns to predict, such as 30d or 1mo; auto holds the "
        "last tenth of the target events.",
    )
    n_cuts: int = Field(
        3,
        ge=2,
        le=24,
        description="Past moments that the ranker learns from; the last is for validation.",
    )

    @model_validator(mode="after")
    def _fold_exists(self) -> Self:
        if self.fold >= self.folds:
            raise ValueError(f"fold must be below folds, got {self.fold} of {self.folds}")
        return self


class AlignmentConfig(Section):
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


class FusionConfig(Section):
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
    items_per_epoch: int = Field(
        25_000, ge=2, description="Maximum number of items in one epoch; the next draws others."
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


class IdentificationConfig(Section):
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
    words: Literal["auto", "off"] = Field(
        "auto",
        description="Whether words are read: on the shop's pictures, by which search finds items, "
        "and on photos, if they help on those of val; auto is where the extra ocr is installed.",
    )
    max_read: int = Field(
        2_000,
        ge=1,
        description="Maximum number of photos of val on which words are read, and of the shop's "
        "pictures. Words of a shop with more pictures come from its texts alone.",
    )


class ServingConfig(Section):
    """What the bundle carries for a service."""

    tower: Literal["torch", "onnx", "int8"] = Field(
        "torch",
        description="What runs the vision tower on a CPU: torch; ONNX Runtime, with the same "
        "answers and several times faster; or that in int8, faster still and slightly less exact. "
        "The last two need the extra onnx.",
    )


class EvaluationConfig(Section):
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
