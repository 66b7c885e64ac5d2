"""What a fine-tuning run is told."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vision.presets import get_augmentation

Fraction = Annotated[float, Field(ge=0, lt=1)]
Side = Annotated[int, Field(ge=16, le=1024)]


class VisionConfig(BaseModel):
    """Backbone, schedule and regularisation of one vision tower."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str = Field(
        default="resnet18",
        description="Network: a timm name, torchvision/NAME, or transformers/HUB_ID_OR_FOLDER.",
    )
    pretrained: bool | str = Field(
        default=False, description="Start from: no weights, published ones, a hub id or a path."
    )
    size: Side = Field(default=128, description="Height and width of pictures in pixels.")
    train_size: Side | None = Field(
        default=None,
        description="Height and width while training; smaller than size is faster, and brings "
        "whole pictures to the scale of the crops trained on. Unset means size.",
    )
    start_size: Side | None = Field(
        default=None,
        description="Height and width in the first epoch, growing to that of training over the "
        "first 70 % of them; small pictures are cheap while little is learned from detail. Unset "
        "trains at one size.",
    )
    fit: Literal["stretch", "crop"] = Field(
        default="stretch",
        description="Make a picture square by stretching it or by keeping its centre.",
    )
    dim: int = Field(default=128, ge=2, le=4096, description="Embedding size D.")
    augmentation: str = Field(
        default="photo", description="Preset of random changes: none, light, photo or strong."
    )
    mixup: float = Field(default=0.0, ge=0, description="Beta parameter of mixup; 0 is off.")
    cutmix: float = Field(default=0.0, ge=0, description="Beta parameter of cutmix; 0 is off.")
    epochs: int = Field(default=30, ge=1, description="Passes over the pictures.")
    batch_size: int = Field(default=64, ge=2, description="Pictures in one step.")
    learning_rate: float = Field(default=1e-3, gt=0, description="AdamW's highest learning rate.")
    weight_decay: float = Field(
        default=0.05, ge=0, description="AdamW's decay of weights, not of norms and biases."
    )
    warmup_epochs: float = Field(
        default=2.0, ge=0, description="Epochs of linear warm-up; at most half of all are."
    )
    gradient_clip: float = Field(default=5.0, gt=0, description="Largest norm of the gradient.")
    label_smoothing: Fraction = Field(
        default=0.1, description="Share of a label that is spread over all classes."
    )
    dropout: Fraction = Field(default=0.0, description="Dropout of features before the heads.")
    drop_path: Fraction = Field(
        default=0.0, description="Stochastic depth, where the backbone has it."
    )
    ema: Fraction | None = Field(
        default=None, description="Keep an average of the weights with this decay; unset is off."
    )
    embedding_weight: float = Field(
        default=0.5, ge=0, description="Weight of the embedding's loss beside that of the heads."
    )
    embedding_temperature: float = Field(
        default=0.05, gt=0, description="Temperature of the embedding's cosine softmax."
    )
    target_weights: dict[str, float] = Field(
        default_factory=dict, description="Weight of each target's loss; 1 where not named."
    )
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        default="auto", description="auto is bf16-mixed where the hardware has it, else 32-true."
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        description="Stop after this many epochs without a lower validation loss and keep the "
        "best epoch; unset trains all epochs and keeps the last.",
    )
    cache_gb: float = Field(
        default=4.0, ge=0, description="Memory for decoded pictures; more go to files in workdir."
    )

    @field_validator("augmentation")
    @classmethod
    def _known_preset(cls, preset: str) -> str:
        get_augmentation(preset)
        return preset

    @model_validator(mode="after")
    def _grows(self) -> Self:
        largest = self.train_size or self.size
        if self.start_size is not None and self.start_size > largest:
            raise ValueError(
                f"start_size must be at most {largest}, the size of training, got {self.start_size}"
            )
        return self

    @field_validator("target_weights")
    @classmethod
    def _not_negative(cls, weights: dict[str, float]) -> dict[str, float]:
        negative = [name for name, weight in weights.items() if weight < 0]
        if negative:
            raise ValueError(f"target_weights must not be negative, got {negative}")
        return weights
