"""The text half of a checkpoint whose two halves put pictures and words into one space."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import CLIPModel, PreTrainedModel, SiglipModel

from text.networks.projection import Dense

PAIRS = ("clip", "siglip")  # model types of transformers
SIGLIP_TEXT = "siglip_text_model"


class TextHalf(NamedTuple):
    """A network whose last token stands for the text, and the layer that follows."""

    backbone: PreTrainedModel
    projection: Dense
    temperature: float  # divisor of the cosines with pictures


def is_pair(folder: Path) -> bool:
    """Return whether a folder holds a CLIP or SigLIP checkpoint, by its ``config.json``."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") in PAIRS


def split_text_half(whole: PreTrainedModel) -> TextHalf:
    """Return the text half of a CLIP or SigLIP model.

    CLIP (Radford et al., 2021, https://arxiv.org/abs/2103.00020) reads a text at its last token and
    maps it into the common space. SigLIP (Zhai et al., 2023, https://arxiv.org/abs/2303.15343) does
    the same with texts that are padded to one length, and reads the last token even if it pads.

    Args:
        whole: Model with its weights.
    """
    if isinstance(whole, CLIPModel):
        weight, bias = whole.text_projection.weight, None
    else:
        assert isinstance(whole, SiglipModel), "the other of the known pairs"
        weight, bias = whole.text_model.head.weight, whole.text_model.head.bias
    size_out, size_in = weight.shape
    projection = Dense(size_in, size_out, bias=bias is not None)
    with torch.no_grad():
        projection.linear.weight.copy_(weight)
        if bias is not None:
            projection.linear.bias.copy_(bias)
    return TextHalf(whole.text_model, projection, float(whole.logit_scale.detach().neg().exp()))
