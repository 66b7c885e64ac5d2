"""What a fine-tuning run is told: one table of numbers, and one table per optional part."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vision.training.presets import get_augmentation

Fraction = Annotated[float, Field(ge=0, lt=1)]
Side = Annotated[int, Field(ge=16, le=1024)]
Weighting = Literal["none", "balanced", "effective_number"]
MetricLoss = Literal["arcface", "proxy_anchor", "supcon", "multi_similarity", "triplet"]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TransferConfig(_Table):
    """How a backbone that has learned before is changed; all of it, by default."""

    frozen_stages: Annotated[int, Field(ge=0)] | Literal["all"] = Field(
        default=0,
        description='Stages, counted from the picture, that keep their weights; or "all".',
    )
    unfreeze_epochs: int | None = Field(
        default=None,
        ge=1,
        description="Start with the whole backbone frozen and release one stage more, from the "
        "last down to frozen_stages, every so many epochs. Unset trains them from the start.",
    )
    layer_decay: float = Field(
        default=1.0, gt=0, le=1, description="Learning rate of each stage over that of the next."
    )
    freeze_norms: bool = Field(
        default=False,
        description="Keep the statistics of all batch norms; those of frozen stages always are.",
    )
    lora_rank: int = Field(
        default=0,
        ge=0,
        description="Rank of low-rank updates of a transformer's attention, which alone are then "
        "trained; merged into the weights afterwards. 0 is off.",
    )
    lora_alpha: float = Field(default=16.0, gt=0, description="LoRA's factor, over its rank.")

    @model_validator(mode="after")
    def _low_rank_alone(self) -> Self:
        changed = self.frozen_stages != 0 or self.unfreeze_epochs is not None
        if self.lora_rank and (changed or self.layer_decay < 1):
            raise ValueError(
                "lora_rank trains low-rank updates alone: leave frozen_stages, unfreeze_epochs and "
                "layer_decay at their defaults"
            )
        return self


class ObjectiveConfig(_Table):
    """What the heads and the embedding are trained to do."""

    classifier: Literal["cross_entropy", "focal", "logit_adjusted"] = Field(
        default="cross_entropy", description="Loss of the heads."
    )
    focal_gamma: float = Field(default=2.0, ge=0, description="How far focal mutes easy pictures.")
    logit_adjustment: float = Field(
        default=1.0, ge=0, description="Factor of the log priors that logit_adjusted adds."
    )
    class_weights: Weighting = Field(
        default="none", description="Weight of a class in the heads' loss, by its frequency."
    )
    target_weights: Literal["fixed", "learned"] = Field(
        default="fixed",
        description="Whether the targets keep the weights of target_weights or learn them.",
    )
    metric: dict[MetricLoss, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="Metric losses of the embedding, and their weights."
    )
    metric_target: str | None = Field(
        default=None, description="Target whose classes they separate; the last one if unset."
    )
    miner: Literal["none", "multi_similarity", "semihard", "hard"] = Field(
        default="none", description="Which pairs multi_similarity and triplet learn from."
    )
    memory: int = Field(
        default=0, ge=0, description="Embeddings of earlier batches that pairs are made with, too."
    )


class ImbalanceConfig(_Table):
    """How often pictures of rare and frequent classes are seen."""

    sampling: Weighting = Field(
        default="none", description="Draw pictures with weights by their class's frequency."
    )
    target: str | None = Field(
        default=None, description="Target whose classes are balanced; the last one if unset."
    )


class AdversarialConfig(_Table):
    """Training on pictures that were changed a little to be mistaken."""

    method: Literal["none", "fgsm", "pgd"] = Field(
        default="none", description="One step along the gradient's sign, or several."
    )
    epsilon: float = Field(
        default=2.0, gt=0, le=255, description="Largest change of a pixel, of 255."
    )
    steps: int = Field(default=3, ge=1, description="Steps of pgd.")
    weight: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Weight of changed pictures; clean ones have the rest.",
    )


class PretrainingConfig(_Table):
    """Self-supervised learning on all pictures, with or without labels, before fine-tuning."""

    method: Literal["simclr", "byol"] = Field(default="byol", description="What is learned.")
    epochs: int = Field(default=100, ge=1, description="Passes over the pictures.")
    batch_size: int = Field(default=128, ge=2, description="Pictures in one step, two views each.")
    size: Side | None = Field(
        default=None, description="Height and width of the views; that of training if unset."
    )
    augmentation: str = Field(default="views", description="Preset that views are drawn with.")
    learning_rate: float = Field(default=1e-3, gt=0, description="AdamW's highest learning rate.")
    weight_decay: float = Field(default=1e-4, ge=0, description="AdamW's decay of weights.")
    warmup_epochs: float = Field(default=5.0, ge=0, description="Epochs of linear warm-up.")
    temperature: float = Field(default=0.2, gt=0, description="Of simclr's NT-Xent.")
    momentum: Fraction = Field(
        default=0.99, description="Of byol's average of the network; rises to 1 over the run."
    )
    hidden: int = Field(default=512, ge=1, description="Width of the projection MLP.")
    dim: int = Field(default=128, ge=2, description="Size of the projection.")

    @field_validator("augmentation")
    @classmethod
    def _known_preset(cls, preset: str) -> str:
        get_augmentation(preset)
        return preset


class TrackingConfig(_Table):
    """Where training curves are written."""

    logger: Literal["none", "csv", "tensorboard", "wandb"] = Field(
        default="none", description="Writer of losses, learning rate and validation metrics."
    )
    folder: str | None = Field(
        default=None, description="Folder of the curves; beside the checkpoints if unset."
    )
    project: str = Field(default="vitrine", description="Project's name at W&B.")
    offline: bool = Field(
        default=True, description="Keep W&B's files on this machine, for `wandb sync`."
    )


class VisionConfig(_Table):
    """Backbone, schedule and regularisation of one vision tower."""

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
        default="photo",
        description="Preset of random changes: none, light, photo, strong or views.",
    )
    policy: Literal["none", "randaugment", "trivialaugment"] = Field(
        default="none", description="torchvision's random operations, before the preset's changes."
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
        default=0.0, description="Rate of stochastic depth; 0 for backbones without it."
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
    accumulate: int = Field(
        default=1, ge=1, description="Batches whose gradients make one step of the optimiser."
    )
    recompute: bool = Field(
        default=False,
        description="Recompute activations for the gradient instead of keeping them: less memory, "
        "more time. For networks that can.",
    )
    transfer: TransferConfig = Field(default=TransferConfig(), description="What is frozen.")
    objective: ObjectiveConfig = Field(default=ObjectiveConfig(), description="The losses.")
    imbalance: ImbalanceConfig = Field(default=ImbalanceConfig(), description="The sampling.")
    adversarial: AdversarialConfig = Field(
        default=AdversarialConfig(), description="Adversarial training."
    )
    pretraining: PretrainingConfig | None = Field(
        default=None, description="Self-supervised pretraining; unset is none."
    )
    tracking: TrackingConfig = Field(default=TrackingConfig(), description="Training curves.")

    @field_validator("augmentation")
    @classmethod
    def _known_preset(cls, preset: str) -> str:
        get_augmentation(preset)
        return preset

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        blended = [name for name in ("mixup", "cutmix") if getattr(self, name) > 0]
        if blended and self.objective.metric:
            raise ValueError(
                f"objective.metric needs pictures of one class each, got {' and '.join(blended)}; "
                "set them to 0"
            )
        return self

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
