"""Tiny CLIP and SigLIP checkpoints with random weights, as they are published."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
)

WORDS = ("<pad>", "<start>", "<end>", "a", "photo", "of", "red", "blue", "mug", "bowl", "car")
LENGTH, SIZE = 12, 32
_SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
_TEXT = {
    **_SMALL,
    "vocab_size": len(WORDS),
    "max_position_embeddings": LENGTH,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_VISION = {**_SMALL, "image_size": SIZE, "patch_size": 8}


def make_pair(kind: str, folder: Path) -> PreTrainedModel:
    """Write a checkpoint into a folder and return its network.

    Args:
        kind: ``clip`` or ``siglip``.
        folder: Folder to write to.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network: PreTrainedModel
        if kind == "clip":
            network = CLIPModel(
                # With 2 as the end, transformers would look for the largest id instead.
                CLIPConfig(
                    text_config={**_TEXT, "eos_token_id": 9, "bos_token_id": 1},
                    vision_config=_VISION,
                    projection_dim=8,
                )
            )
        else:
            network = SiglipModel(SiglipConfig(text_config=_TEXT, vision_config=_VISION))
        for weight in network.parameters():  # as they are built, all texts look nearly the same
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.4)
    network.eval().save_pretrained(folder)
    _tokenizer(kind).save_pretrained(folder)
    CLIPImageProcessor(size=SIZE, crop_size=SIZE).save_pretrained(folder)
    return network


def _tokenizer(kind: str) -> PreTrainedTokenizerFast:
    words = list(WORDS)
    if kind == "clip":  # the end is word 9 here
        words[2], words[9] = words[9], words[2]
    ids = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<pad>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    start = "<start> " if kind == "clip" else ""
    specials = [(word, ids[word]) for word in ("<start>", "<end>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start}$A <end>", special_tokens=specials
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<start>",
        eos_token="<end>",
        model_max_length=LENGTH,
    )
