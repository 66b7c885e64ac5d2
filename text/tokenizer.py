"""A tokenizer trained on the catalogue's own words."""

from collections.abc import Sequence

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

PAD, START = "[PAD]", "[CLS]"

# A piece that was seen this often becomes part of the vocabulary.
_MIN_FREQUENCY = 2


def train_tokenizer(
    texts: Sequence[str], *, vocab_size: int, max_tokens: int
) -> PreTrainedTokenizerFast:
    """Return a lower-casing byte-level BPE tokenizer of at most ``vocab_size`` tokens.

    Every string can be written in it, emoji included, so there is no unknown token. A word that
    occurs twice is one token; a Chinese character is always its own piece, as in BERT; no token
    says whether a blank came before it, so the end of a German compound is the word it ends in.
    The same texts give the same vocabulary: WordPiece training would number it at random.

    Args:
        texts: Normalised titles and descriptions.
        vocab_size: Most tokens, at least 300 (256 bytes and the special tokens).
        max_tokens: Texts are cut to this many tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Whitespace(),
            pre_tokenizers.Split(Regex(r"\p{Han}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=_MIN_FREQUENCY,
        special_tokens=[PAD, START],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # The start token gives a text without words something to be embedded by.
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, tokenizer.token_to_id(START))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        cls_token=START,
        model_max_length=max_tokens,
        model_input_names=["input_ids", "attention_mask"],
    )
