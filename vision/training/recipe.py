"""The recipe of fine-tuning, as far as a configuration leaves it open: a rule, not a search."""

from typing import Any

import torch

from vision.config import TransferConfig, VisionConfig
from vision.dataset import Samples
from vision.networks.published import WEIGHTS

PICTURES_SEEN = 40_000  # in all epochs together, with every repetition
FEWEST_EPOCHS, MOST_EPOCHS = 4, 30
SIZE = 192
# A crop shows things larger than the whole picture does, so that smaller crops show them as large.
TRAIN_SHARE = 5 / 6
BATCH_SIZE = 32
LEARNING_RATE = 8e-4
LAYER_DECAY = 0.85
FROZEN_STAGES = 3
# Pictures per class from which heads start at random. Chosen by a few runs on Grocery Store alone.
ENOUGH_PER_CLASS = 8


def decide_recipe(config: VisionConfig, samples: Samples) -> VisionConfig:
    """Return the configuration with the numbers of fine-tuning that it does not set.

    They are set where training starts from published weights; docs/vision.md has the rule and its
    reasons. Any other configuration is returned as it is, and so is one that sets every field.

    Args:
        config: Result of ``decide_start``.
        samples: Pictures to train on, which are counted.
    """
    if config.pretrained is not True:
        return config
    named = config.model_fields_set
    counted = round(PICTURES_SEEN / max(1, len(samples)))
    rule: dict[str, Any] = {
        "epochs": min(max(counted, FEWEST_EPOCHS), MOST_EPOCHS),
        "size": SIZE,
        "batch_size": BATCH_SIZE,
        "learning_rate": LEARNING_RATE,
        "transfer": _transfer(config, samples),
    }
    if config.start_size is None:
        size = config.size if "size" in named else SIZE
        rule["train_size"] = max(16, round(TRAIN_SHARE * size))
    # Processors that multiply bfloat16 fast are slow at it in EfficientNet's depthwise layers.
    if config.backbone in WEIGHTS and not torch.cuda.is_available():
        rule["precision"] = "32-true"
    return config.model_copy(update={name: rule[name] for name in sorted(rule.keys() - named)})


def _transfer(config: VisionConfig, samples: Samples) -> TransferConfig:
    """Return which parts of the network are trained, from what."""
    most_classes = max((len(names) for names in samples.classes.values()), default=1)
    return TransferConfig(
        heads="random" if len(samples) >= ENOUGH_PER_CLASS * most_classes else "fitted",
        freeze_norms=True,
        frozen_stages=FROZEN_STAGES if config.backbone in WEIGHTS else 0,
        layer_decay=LAYER_DECAY,
    )
