"""What a text tower is made of and how it is fine-tuned."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TransferConfig(_Table):
    """How an encoder that has learned before is changed; all of it, by default."""

    frozen_stages: Annotated[int, Field(ge=0)] | Literal["all"] = Field(
        0,
        description="Stages, counted from the words, that keep their weights, the word embeddings "
        'being the first and each layer one more; or "all", so that only a projection learns.',
    )
    lora_rank: int = Field(
        0,
        ge=0,
        description="Rank of low-rank updates of the layers, which alone are then trained; merged "
        "into the weights afterwards. 0 is off.",
    )
    lora_alpha: int = Field(16, ge=1, description="LoRA's factor, over its rank.")

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
        description="Transformers or sentence-transformers folder, or hub id, to start from; "
        "unset builds a small encoder and its tokenizer from the catalogue.",
    )
    pooling: Literal["auto", "mean", "cls", "max", "lasttoken"] = Field(
        "auto", description="How tokens become one vector; auto is as the checkpoint says, or mean."
    )
    dim: int | None = Field(
        None, ge=2, le=4096, description="Embedding size D; unset is the encoder's own width."
    )
    max_tokens: int = Field(64, ge=4, le=8192, description="Tokens of a text that are read.")
    vocab_size: int = Field(
        8000, ge=300, description="Largest vocabulary of a tokenizer built from the catalogue."
    )
    # Measured on Myntra, Online Retail and generated titles: width is what keeps words readable
    # (linear R2 of each word .17, .28, .44 at 64, 128, 256), while a layer costs ten times the
    # time and finds titles by their words no better.
    hidden: int = Field(256, ge=8, description="Width of an encoder built from the catalogue.")
    layers: int = Field(
        0, ge=0, le=48, description="Transformer layers of such an encoder; 0 averages its tokens."
    )
    heads: int = Field(4, ge=1, description="Attention heads of such an encoder.")
    epochs: int = Field(20, ge=0, description="Passes over the texts; 0 keeps the encoder as is.")
    batch_size: int = Field(128, ge=2, description="Texts in one step, each other's negatives.")
    accumulate: int = Field(
        1,
        ge=1,
        description="Batches whose gradients make one step of the optimiser; negatives are those "
        "of a text's own batch all the same.",
    )
    learning_rate: float = Field(1e-3, gt=0, description="Highest learning rate of AdamW.")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's decay; not on norms and biases.")
    warmup_epochs: float = Field(
        1.0, ge=0, description="Epochs of linear warm-up before the cosine; at most half of all."
    )
    gradient_clip: float = Field(5.0, gt=0, description="Largest norm of the gradient.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout of such an encoder, in training.")
    contrastive_weight: float = Field(
        1.0, ge=0, description="Weight of finding a text by some of its words."
    )
    # Heavier, both take from finding texts by their own words.
    category_weight: float = Field(
        0.1, ge=0, description="Weight of finding a text by some words of its category's path."
    )
    pair_weight: float = Field(
        0.1, ge=0, description="Weight of finding a text by one that goes with it."
    )
    class_weight: float = Field(
        0.2,
        ge=0,
        description="Weight of the targets' mean loss: category levels, attributes.",
    )
    target_weights: dict[str, float] = Field(
        default_factory=dict, description="Weight of each target's loss; 1 where not named."
    )
    temperature: float = Field(0.05, gt=0, description="What cosines are divided by in every loss.")
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        "auto", description="auto is bf16-mixed on CUDA cards that compute in it, else 32-true."
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="Stop after this many epochs without a lower validation loss and keep the "
        "best epoch; unset trains all epochs and keeps the last.",
    )
    transfer: TransferConfig = Field(TransferConfig(), description="What of a checkpoint learns.")

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
