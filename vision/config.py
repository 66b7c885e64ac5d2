"""The configuration of a vision tower: one table of numbers, and a table for each optional part."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vision.training.presets import Preset

AUTO = "auto"  # of backbone and pretrained: what this machine has, see vision.networks.start

Fraction = Annotated[float, Field(ge=0, lt=1)]
Side = Annotated[int, Field(ge=16, le=1024)]
Weighting = Literal["none", "balanced", "effective_number"]
MetricLoss = Literal["arcface", "proxy_anchor", "supcon", "multi_similarity", "triplet"]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TransferConfig(_Table):
    """Which parts of a pretrained backbone are trained; all of them by default."""

    frozen_stages: Annotated[int, Field(ge=0)] | Literal["all"] = Field(
        default=0,
        description='Stages, counted from the picture, that keep their weights; or "all".',
    )
    unfreeze_epochs: int | None = Field(
        default=None,
        ge=1,
        description="Epochs after which one more stage is released. Training starts with the "
        "whole backbone frozen and releases from the last stage down to frozen_stages. Unset "
        "trains them from the start.",
    )
    layer_decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Learning rate of each stage, as a share of the next stage's.",
    )
    freeze_norms: bool = Field(
        default=False,
        description="Whether to keep the statistics of all batch norms. Those of frozen stages "
        "are always kept.",
    )
    heads: Literal["random", "fitted"] = Field(
        default="random",
        description="Start of the classifiers: random, or fitted to the features that the backbone "
        "has before training, so that the first steps do not distort good features.",
    )
    lora_rank: int = Field(
        default=0,
        ge=0,
        description="Rank of low-rank updates to a transformer's attention. Only the updates are "
        "trained, and merged into the weights at the end. 0 is off.",
    )
    lora_alpha: float = Field(
        default=16.0, gt=0, description="LoRA's scaling factor, which is divided by the rank."
    )

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
        default="cross_entropy", description="Loss of the classification heads."
    )
    focal_gamma: float = Field(
        default=2.0,
        ge=0,
        description="Exponent of the focal loss. A higher one gives easy pictures less weight.",
    )
    logit_adjustment: float = Field(
        default=1.0,
        ge=0,
        description="Factor of the log priors that logit_adjusted adds to the logits.",
    )
    class_weights: Weighting = Field(
        default="none",
        description="Weight of a class in the heads' loss, by the frequency of the class.",
    )
    target_weights: Literal["fixed", "learned"] = Field(
        default="fixed",
        description="Whether the targets keep the weights in target_weights or learn them.",
    )
    metric: dict[MetricLoss, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="Metric losses of the embedding, with their weights."
    )
    metric_target: str | None = Field(
        default=None,
        description="Target whose classes the metric losses separate. Unset takes the last target.",
    )
    miner: Literal["none", "multi_similarity", "semihard", "hard"] = Field(
        default="none", description="Which pairs multi_similarity and triplet learn from."
    )
    memory: int = Field(
        default=0,
        ge=0,
        description="Number of embeddings from earlier batches that take part in pairs.",
    )


class ImbalanceConfig(_Table):
    """How often pictures of rare and frequent classes are seen."""

    sampling: Weighting = Field(
        default="none",
        description="Weight with which a picture is drawn, by the frequency of its class.",
    )
    target: str | None = Field(
        default=None, description="Target whose classes are balanced. Unset takes the last target."
    )


class AdversarialConfig(_Table):
    """Training on pictures changed a little so that the tower mistakes them."""

    method: Literal["none", "fgsm", "pgd"] = Field(
        default="none",
        description="Attack on the training pictures: one step along the gradient's sign (fgsm), "
        "or several (pgd).",
    )
    epsilon: float = Field(
        default=2.0, gt=0, le=255, description="Largest change of a pixel, on a scale of 255."
    )
    steps: int = Field(default=3, ge=1, description="Number of steps that pgd takes.")
    weight: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Weight of the changed pictures in the loss. The original ones have the rest.",
    )


class PretrainingConfig(_Table):
    """Self-supervised learning on all pictures, with or without labels, before fine-tuning."""

    method: Literal["simclr", "byol"] = Field(
        default="byol", description="Method of self-supervised learning."
    )
    epochs: int = Field(default=100, ge=1, description="Passes over the pictures in pretraining.")
    batch_size: int = Field(
        default=128, ge=2, description="Pictures in one step of pretraining, with two views each."
    )
    size: Side | None = Field(
        default=None,
        description="Height and width of the views in pixels. Unset takes the size of training.",
    )
    augmentation: Preset = Field(
        default="views", description="Preset of random changes that makes the views."
    )
    learning_rate: float = Field(
        default=1e-3, gt=0, description="Highest AdamW learning rate of pretraining."
    )
    weight_decay: float = Field(
        default=1e-4, ge=0, description="AdamW weight decay of pretraining."
    )
    warmup_epochs: float = Field(
        default=5.0, ge=0, description="Epochs of linear warm-up in pretraining."
    )
    temperature: float = Field(
        default=0.2, gt=0, description="Temperature of simclr's NT-Xent loss."
    )
    momentum: Fraction = Field(
        default=0.99,
        description="Momentum of byol's average of the network at the start. It rises to 1 over "
        "the run.",
    )
    hidden: int = Field(
        default=512, ge=1, description="Width of the projection MLP in pretraining."
    )
    dim: int = Field(default=128, ge=2, description="Size of the projection in pretraining.")


class PseudoLabelConfig(_Table):
    """Labels that towers give to pictures without one, from which one more tower learns."""

    members: int = Field(
        default=1, ge=1, le=16, description="Towers whose mean probabilities label the pictures."
    )
    confidence: float = Field(
        default=0.8, gt=0, le=1, description="Smallest probability of a label that a tower gives."
    )
    per_class: int | None = Field(
        default=None,
        ge=1,
        description="Largest number of pictures with one such label.",
    )


class TrackingConfig(_Table):
    """Where training curves are written."""

    logger: Literal["none", "csv", "tensorboard", "wandb"] = Field(
        default="none",
        description="Where losses, learning rate and validation metrics are written.",
    )
    folder: str | None = Field(
        default=None,
        description="Folder of the training curves. Unset writes them beside the checkpoints.",
    )
    project: str = Field(default="vitrine", description="Name of the project at W&B.")
    offline: bool = Field(
        default=True,
        description="Whether W&B's files stay on this machine, for a later `wandb sync`.",
    )


class VisionConfig(_Table):
    """Backbone, schedule and regularisation of one vision tower."""

    backbone: str = Field(
        default=AUTO,
        description="Network: a timm name, torchvision/NAME, or transformers/HUB_ID_OR_FOLDER; "
        "auto takes tf_efficientnet_lite0 if it starts from published weights, the network of a "
        "tower that pretrained is the path of, else resnet18.",
    )
    pretrained: bool | str = Field(
        default=AUTO,
        description="Weights to start from: none (false), the published ones (true), a hub id or "
        "a path; auto takes the published ones if they are on this machine, else none.",
    )
    size: Side = Field(
        default=128,
        description="Height and width of pictures in pixels. Unset is 192 where training starts "
        "from published weights.",
    )
    train_size: Side | None = Field(
        default=None,
        description="Height and width in training. A smaller size than size is faster, and "
        "brings whole pictures to the scale of the crops trained on. Unset takes size, or five "
        "sixths of it where training starts from published weights.",
    )
    start_size: Side | None = Field(
        default=None,
        description="Height and width in the first epoch, which grow to those of training over "
        "70 % of the epochs: little is learned from detail at first. Unset trains at one size.",
    )
    fit: Literal["stretch", "crop"] = Field(
        default="stretch",
        description="How a picture becomes square: by stretching it, or by keeping its centre.",
    )
    dim: int = Field(
        default=128, ge=2, le=4096, description="Size D of the vision tower's embedding."
    )
    augmentation: Preset = Field(
        default="photo",
        description="Preset of random changes to training pictures: none, light, photo, strong "
        "or views.",
    )
    policy: Literal["none", "randaugment", "trivialaugment"] = Field(
        default="none",
        description="Random operations of torchvision, before the changes of the preset.",
    )
    mixup: float = Field(default=0.0, ge=0, description="Beta parameter of mixup. 0 is off.")
    cutmix: float = Field(default=0.0, ge=0, description="Beta parameter of cutmix. 0 is off.")
    epochs: int = Field(
        default=30,
        ge=1,
        description="Passes over the training pictures. Unset follows from the number of pictures "
        "where training starts from published weights.",
    )
    batch_size: int = Field(
        default=64,
        ge=2,
        description="Pictures in one step of the vision tower. Unset is 32 where training starts "
        "from published weights.",
    )
    learning_rate: float = Field(
        default=1e-3,
        gt=0,
        description="Highest AdamW learning rate of the vision tower. Unset is 8e-4 where training "
        "starts from published weights.",
    )
    weight_decay: float = Field(
        default=0.05,
        ge=0,
        description="AdamW weight decay of the vision tower, biases and norms excluded.",
    )
    warmup_epochs: float = Field(
        default=2.0,
        ge=0,
        description="Epochs of linear warm-up of the vision tower; at most half of all epochs.",
    )
    gradient_clip: float = Field(
        default=5.0,
        gt=0,
        description="Largest gradient norm of the vision tower; a larger gradient is scaled down.",
    )
    label_smoothing: Fraction = Field(
        default=0.1, description="Share of a label that is spread over all classes."
    )
    dropout: Fraction = Field(
        default=0.0, description="Dropout rate of the features before the heads."
    )
    drop_path: Fraction = Field(
        default=0.0, description="Rate of stochastic depth. 0 for backbones without it."
    )
    ema: Fraction | None = Field(
        default=None,
        description="Decay of a running average of the weights, which is then kept. Unset is off.",
    )
    embedding_weight: float = Field(
        default=0.5, ge=0, description="Weight of the embedding's loss beside that of the heads."
    )
    embedding_temperature: float = Field(
        default=0.05, gt=0, description="Temperature of the embedding's cosine softmax."
    )
    target_weights: dict[str, float] = Field(
        default_factory=dict,
        description="Weight of the loss of each target on pictures. Targets that are not named "
        "weigh 1.",
    )
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        default="auto",
        description="Number format of the vision tower's training: auto takes bf16-mixed where "
        "the hardware computes in it, else 32-true. Unset is 32-true for published weights of "
        "EfficientNet-Lite on a processor.",
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        description="Epochs without a lower validation loss after which the vision tower stops "
        "and keeps its best epoch. Unset trains all epochs and keeps the last.",
    )
    cache_gb: float = Field(
        default=4.0,
        ge=0,
        description="Memory in GB for decoded pictures. The rest goes to files in workdir.",
    )
    accumulate: int = Field(
        default=1,
        ge=1,
        description="Batches of pictures whose gradients make one step of the optimiser.",
    )
    recompute: bool = Field(
        default=False,
        description="Whether to recompute activations for the gradient instead of keeping them, "
        "which takes less memory and more time. For networks that can.",
    )
    transfer: TransferConfig = Field(
        default=TransferConfig(),
        description="Which parts of a pretrained backbone are trained. A table without any field "
        "follows from published weights, see docs/vision.md.",
    )
    objective: ObjectiveConfig = Field(
        default=ObjectiveConfig(), description="Losses of the vision tower."
    )
    imbalance: ImbalanceConfig = Field(
        default=ImbalanceConfig(), description="Sampling of rare and frequent classes."
    )
    adversarial: AdversarialConfig = Field(
        default=AdversarialConfig(), description="Training on adversarial pictures."
    )
    pretraining: PretrainingConfig | None = Field(
        default=None, description="Self-supervised pretraining before fine-tuning. Unset is off."
    )
    pseudo_labels: PseudoLabelConfig | None = Field(
        default=None, description="Labels for pictures that have none, by trained towers."
    )
    tracking: TrackingConfig = Field(
        default=TrackingConfig(), description="Where training curves are written."
    )

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
