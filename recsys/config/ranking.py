"""The tables of a training configuration that rank: user encoder, candidates and rankers."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from recsys.config.sections import Kind, Section


class TreesConfig(Section):
    """The trees that rank (LambdaMART) and their training."""

    trees: int = Field(200, ge=1, le=10_000, description="Number of trees.")
    leaves: int = Field(31, ge=2, le=1_024, description="Largest number of leaves of a tree.")
    learning_rate: float = Field(0.07, gt=0, le=1, description="Weight of each new tree.")
    truncation: int = Field(30, ge=1, description="Ranks at the top that training looks at.")
    min_candidates: int = Field(50, ge=1, description="Smallest number of candidates in a leaf.")
    feature_share: float = Field(
        0.7, gt=0, le=1, description="Share of the features that each tree may read."
    )


class RankerConfig(Section):
    """The rankers, of which validation chooses one, and their training."""

    kind: Literal["auto", "trees", "network"] = Field(
        "auto",
        description="What ranks; auto is whatever is best on validation, a simple baseline "
        "included.",
    )
    trees: TreesConfig = Field(TreesConfig(), description="The trees and their training.")
    hidden: int = Field(16, ge=1, description="Width of the network's hidden layers.")
    dropout: float = Field(
        0.2, ge=0, lt=1, description="Dropout rate of the network's hidden layers."
    )
    n_queries: int = Field(
        2_000, ge=1, description="Maximum number of users to rank for at each past moment."
    )
    n_candidates: int = Field(
        400, ge=2, description="Number of candidates to rank for each training query."
    )
    epochs: int = Field(
        20, ge=1, description="Maximum number of passes over the network's queries."
    )
    patience: int | None = Field(
        4,
        ge=1,
        description="Epochs without progress after which the network stops; unset is never.",
    )
    batch_size: int = Field(
        64,
        ge=1,
        description="Queries in one training step of the network; fewer where an epoch would have "
        "less than 8 steps.",
    )
    learning_rate: float = Field(
        3e-3, gt=0, description="Highest AdamW learning rate of the network."
    )
    weight_decay: float = Field(1e-3, ge=0, description="AdamW weight decay of the network.")
    discovery_weight: float = Field(
        1.0,
        ge=0,
        description="Weight of the network's loss over items new to the user, beside all items.",
    )
    hide_events: float = Field(
        0.03,
        ge=0,
        lt=1,
        description="Share of candidates shown to training as if they had no events.",
    )


class UserConfig(Section):
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
    histories_per_epoch: int = Field(
        20_000,
        ge=1,
        description="Maximum number of histories in one epoch; the next draws others.",
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


class OffersConfig(Section):
    """How many items each source offers to a ranking of a catalogue too large to be ranked whole.

    A source with 0 is off. The order of the sources settles ties: an item that stands equally high
    in two of them is named after the first.
    """

    own_history: int = Field(1_000, ge=0, description="Items of the user's own, last met first.")
    next_visit: int = Field(
        200, ge=0, description="Items that others took in the visit after such a last visit."
    )
    together: int = Field(200, ge=0, description="Items taken together with the user's own (EASE).")
    together_recent: int = Field(
        200, ge=0, description="Items taken together with those that the user met lately."
    )
    similar_users: int = Field(200, ge=0, description="Items of users with a like history (iALS).")
    related: int = Field(
        200, ge=0, description="Items that the table of relations relates to the user's own."
    )
    taste: int = Field(200, ge=0, description="Items whose titles and pictures suit the user.")
    popular: int = Field(200, ge=0, description="Items with the most users lately.")
    new: int = Field(200, ge=0, description="Items created last.")

    @model_validator(mode="after")
    def _one_is_on(self) -> Self:
        if not any(self.model_dump().values()):
            raise ValueError("at least one source must be on, got 0 for all")
        return self
