"""The configuration of a text encoder: its network, its training and its losses."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

AUTO = "auto"


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TransferConfig(_Table):
    """Which parts of a pretrained encoder are trained; all of them by default."""

    frozen_stages: Annotated[int, Field(ge=0)] | Literal["all"] = Field(
        0,
        description="Number of stages that keep their weights. The word embeddings are the "
        'first, and each layer is one more. With "all", only a projection learns.',
    )
    lora_rank: int = Field(
        0,
        ge=0,
        description="Rank of low-rank updates to the encoder's layers. Only the updates are "
        "trained, and merged into the weights at the end. 0 is off.",
    )
    lora_alpha: int = Field(
        16, ge=1, description="Scaling factor of the encoder's LoRA, which is divided by the rank."
    )

    @model_validator(mode="after")
    def _low_rank_alone(self) -> Self:
        if self.lora_rank and self.frozen_stages != 0:
            raise ValueError(
                "lora_rank trains low-rank updates alone: leave frozen_stages at its default"
            )
        return self


class TextConfig(_Table):
    """Encoder, schedule and objectives of one text tower."""

    checkpoint: str | None = Field(
        None,
        description="Folder or hub id of a transformers or sentence-transformers model to start "
        "from. Unset builds a small encoder and its tokenizer from the catalogue; auto takes "
        "all-MiniLM-L6-v2 as it was published in its place, if it is installed and recognises "
        "more of the titles that are held out.",
    )
    pooling: Literal["auto", "mean", "cls", "max", "lasttoken"] = Field(
        "auto",
        description="How tokens become one vector; auto does as the checkpoint says, or else "
        "takes the mean.",
    )
    dim: int | None = Field(
        None,
        ge=2,
        le=4096,
        description="Size D of the text encoder's embedding. Unset takes the encoder's own width.",
    )
    max_tokens: int = Field(
        64, ge=4, le=8192, description="Number of tokens of a text that are read."
    )
    vocab_size: int = Field(
        8000, ge=300, description="Largest vocabulary of a tokenizer built from the catalogue."
    )
    # Measured on Myntra, Online Retail and generated titles: width is what keeps words readable
    # (linear R2 of each word .17, .28, .44 at 64, 128, 256), while a layer costs ten times the
    # time and finds titles by their words no better.
    hidden: int = Field(256, ge=8, description="Width of an encoder built from the catalogue.")
    layers: int = Field(
        0,
        ge=0,
        le=48,
        description="Transformer layers of an encoder built from the catalogue. 0 averages its "
        "tokens.",
    )
    heads: int = Field(
        4, ge=1, description="Attention heads of an encoder built from the catalogue."
    )
    epochs: int = Field(
        20, ge=0, description="Passes over the texts. 0 keeps the encoder as it is."
    )
    texts_per_epoch: int = Field(
        25_000,
        ge=2,
        description="Maximum number of texts in one epoch; the next draws others.",
    )
    batch_size: int = Field(
        128, ge=2, description="Texts in one step; each is a negative of the others."
    )
    accumulate: int = Field(
        1,
        ge=1,
        description="Batches of texts whose gradients make one step of the optimiser. The "
        "negatives of a text are those of its own batch.",
    )
    learning_rate: float = Field(
        1e-3, gt=0, description="Highest AdamW learning rate of the text encoder."
    )
    weight_decay: float = Field(
        0.01, ge=0, description="AdamW weight decay of the text encoder, biases and norms excluded."
    )
    warmup_epochs: float = Field(
        1.0,
        ge=0,
        description="Epochs of linear warm-up of the text encoder; at most half of all epochs.",
    )
    gradient_clip: float = Field(
        5.0,
        gt=0,
        description="Largest gradient norm of the text encoder; a larger gradient is scaled down.",
    )
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Dropout rate of an encoder built from the catalogue."
    )
    contrastive_weight: float = Field(
        1.0, ge=0, description="Weight of the loss that finds a text by some of its words."
    )
    # Heavier, both take from finding texts by their own words.
    category_weight: float = Field(
        0.1,
        ge=0,
        description="Weight of the loss that finds a text by some words of its category's path.",
    )
    pair_weight: float = Field(
        0.1, ge=0, description="Weight of the loss that finds a text by one that goes with it."
    )
    class_weight: float = Field(
        0.2,
        ge=0,
        description="Weight of the mean loss of the targets: category levels and attributes.",
    )
    target_weights: dict[str, float] = Field(
        default_factory=dict,
        description="Weight of the loss of each target on texts. Targets that are not named "
        "weigh 1.",
    )
    temperature: float = Field(
        0.05,
        gt=0,
        description="Temperature that cosines are divided by in every loss of the text encoder.",
    )
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        "auto",
        description="Number format of the text encoder's training: auto takes bf16-mixed on CUDA "
        "cards that compute in it, else 32-true.",
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="Epochs without a lower validation loss after which the text encoder stops "
        "and keeps its best epoch. Unset trains all epochs and keeps the last.",
    )
    transfer: TransferConfig = Field(
        TransferConfig(), description="Which parts of a checkpoint are trained."
    )

    @field_validator("target_weights")
    @classmethod
    def _not_negative(cls, weights: dict[str, float]) -> dict[str, float]:
        negative = [name for name, weight in weights.items() if weight < 0]
        if negative:
            raise ValueError(f"target_weights must not be negative, got {negative}")
        return weights

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"heads must divide hidden, got {self.heads} and {self.hidden}")
        return self
