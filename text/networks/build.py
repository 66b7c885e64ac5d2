"""Build an encoder from its configuration: from a checkpoint, or new from the catalogue's words."""

from collections.abc import Sequence

import torch
from transformers import BertConfig, BertModel

from text.checkpoint import load
from text.config import AUTO, TextConfig
from text.encoder import TextEncoder
from text.errors import InvalidArgumentError
from text.networks.hub import find_checkpoint, find_origin
from text.networks.projection import build_projection
from text.tokens.normalize import normalize
from text.tokens.tokenizer import train_tokenizer


def build_encoder(config: TextConfig, texts: Sequence[str], *, seed: int) -> TextEncoder:
    """Return the encoder that fine-tuning starts from, in evaluation mode.

    Args:
        config: Name of the checkpoint, or sizes of a new encoder.
        texts: Titles and descriptions of the catalogue, which the tokenizer of a new encoder
            learns from.
        seed: Random seed for new weights. The same texts and seed give the same encoder.

    Raises:
        WeightsError: If the checkpoint is not on this machine and cannot be fetched.
        CheckpointError: If the checkpoint is damaged or not supported.
        InvalidArgumentError: If a new encoder is wanted and no text has a word, or the checkpoint
            is auto, which only ``text.comparison.choose_start`` decides.
    """
    if config.checkpoint == AUTO:
        raise InvalidArgumentError(
            'checkpoint = "auto" must be decided before an encoder is built: pass what '
            "text.comparison.choose_start returns, or leave it unset for a new encoder"
        )
    if config.checkpoint is None:
        encoder = _build_new(config, texts, seed)
    else:
        encoder = load(find_checkpoint(config.checkpoint))
        # A folder that this library wrote names the weights that its own training began with.
        encoder.origin = encoder.origin or find_origin(config.checkpoint)
    if config.pooling != "auto":
        encoder.pooling = config.pooling
    if not encoder.padded:  # that is read at its last place, wherever the text ends
        encoder.max_tokens = min(encoder.max_tokens, config.max_tokens)
    if config.dim is not None and config.dim != encoder.dim:
        encoder.projection.append(build_projection(encoder.dim, config.dim, seed=seed))
    return encoder.eval()


def _build_new(config: TextConfig, texts: Sequence[str], seed: int) -> TextEncoder:
    normalized = [normalize(text) for text in texts]
    if not any(normalized):
        raise InvalidArgumentError(
            "texts must have at least one word to build an encoder from, but all are empty; "
            "give titles, or set checkpoint"
        )
    tokenizer = train_tokenizer(
        normalized, vocab_size=config.vocab_size, max_tokens=config.max_tokens
    )
    bert = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=2 * config.hidden,
        max_position_embeddings=config.max_tokens,
        type_vocab_size=1,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = BertModel(bert, add_pooling_layer=False)
    return TextEncoder(backbone, tokenizer, pooling="mean", max_tokens=config.max_tokens)
