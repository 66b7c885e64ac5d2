"""The recipe of fine-tuning, as far as a configuration leaves it open: a rule, not a search."""

from typing import Any

import torch

from vision.config import TransferConfig, VisionConfig
from vision.networks.published import WEIGHTS

PICTURES_SEEN = 30_000  # in all epochs together, with every repetition
FEWEST_EPOCHS, MOST_EPOCHS = 4, 20
SIZE = 160
LEARNING_RATE = 4e-4
LAYER_DECAY = 0.8
PATIENCE = 0.5  # share of the epochs; the last ones, with low rates, gain most
FROZEN_STAGES = 3


def decide_recipe(config: VisionConfig, pictures: int, *, validated: bool) -> VisionConfig:
    """Return the configuration with the numbers of fine-tuning that it does not set.

    They are set where training starts from published weights; docs/vision.md has the rule and its
    reasons. Any other configuration is returned as it is, and so is one that sets every field.

    Args:
        config: Result of ``decide_start``.
        pictures: Number of pictures to train on.
        validated: Whether there are validation pictures.
    """
    if config.pretrained is not True:
        return config
    counted = min(max(round(PICTURES_SEEN / max(1, pictures)), FEWEST_EPOCHS), MOST_EPOCHS)
    epochs = config.epochs if "epochs" in config.model_fields_set else counted
    rule: dict[str, Any] = {
        "epochs": epochs,
        "size": SIZE,
        "learning_rate": LEARNING_RATE,
    }
    transfer = TransferConfig(heads="fitted", freeze_norms=True, layer_decay=LAYER_DECAY)
    if validated:
        rule["patience"] = max(2, round(PATIENCE * epochs))
    if config.backbone in WEIGHTS:
        transfer = transfer.model_copy(update={"frozen_stages": FROZEN_STAGES})
        if not torch.cuda.is_available():
            # Processors that multiply bfloat16 fast are slow at it in depthwise layers.
            rule["precision"] = "32-true"
    rule["transfer"] = transfer
    unset = rule.keys() - config.model_fields_set
    return config.model_copy(update={name: rule[name] for name in sorted(unset)})
