"""What a text tower is made of and how it is fine-tuned; every field described."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TextConfig(BaseModel):
    """The text encoder and its fine-tuning on the catalogue's titles."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: str | None = Field(
        None,
        description="Transformers or sentence-transformers folder or hub id to start from; "
        "unset: a small encoder with its own tokenizer is built from the catalogue.",
    )
    pooling: Literal["auto", "mean", "cls", "max", "lasttoken"] = Field(
        "auto", description="How tokens become one embedding; auto: as the checkpoint says, or mean."
    )
    dim: int | None = Field(
        None, ge=1, description="Embedding size; unset: the backbone's own, without a projection."
    )
    max_tokens: int = Field(48, ge=2, le=8192, description="Tokens of a text that are read.")

    vocab_size: int = Field(
        8000, ge=300, description="Largest vocabulary of a tokenizer trained on the catalogue."
    )
    hidden: int = Field(128, ge=8, description="Width of an encoder built from nothing.")
    layers: int = Field(2, ge=0, description="Transformer layers of an encoder built from nothing.")
    heads: int = Field(4, ge=1, description="Attention heads of an encoder built from nothing.")

    epochs: int = Field(10, ge=0, description="Passes over the titles; 0 leaves the encoder as is.")
    batch_size: int = Field(128, ge=2, description="Titles per step; each is the others' negative.")
    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(0.01, ge=0, description="Of AdamW, on matrices only.")
    warmup: float = Field(
        0.1, ge=0, lt=1, description="Share of the steps in which the learning rate rises."
    )
    contrastive_weight: float = Field(
        1.0, ge=0, description="Weight of telling a title from others by a few of its words."
    )
    target_weight: float = Field(
        0.2, ge=0, description="Weight of the mean loss over the category levels and attributes."
    )
    temperature: float = Field(0.05, gt=0, description="Of both losses.")
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = Field(
        "auto", description="Of training; auto: bfloat16 where the accelerator has it."
    )
