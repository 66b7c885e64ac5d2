"""A tokenizer trained on the catalogue's own words."""

from collections import Counter
from collections.abc import Iterator, Sequence

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

from text.tokens.compounds import split_compounds

PAD, START = "[PAD]", "[CLS]"

# A piece that was seen this often becomes part of the vocabulary.
_MIN_FREQUENCY = 2

# Latin, Greek and Cyrillic accents, Hebrew and Arabic vowels and the Arabic stretch. Marks of other
# scripts, as of Thai, Hindi and Japanese, are letters: without them words are other words.
_OMITTED_MARKS = (
    "[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0640\u064b-\u065f\u0670]"
)

# What shoppers write for what titles have; joiners and variation selectors cannot be typed at all.
_SPELLINGS = (
    ("[\u200c\u200d\ufe00-\ufe0f]", ""),
    ("ß", "ss"),
    ("×", "x"),
    ("[‐‑–—−]", "-"),
    ("′′|[“”„]", '"'),
    ("[‘’ʼ′]", "'"),
)

# Pieces of their own, with or without blanks around them: ideographs, emoji, numbers ("10cm" is "10
# cm"), and runs of each kana.
_PIECES = r"\p{Han}|\p{So}|\p{N}+|\p{Hiragana}+|[\p{Katakana}ー]+"


def train_tokenizer(
    texts: Sequence[str], *, vocab_size: int, max_tokens: int
) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of at most ``vocab_size`` tokens.

    Case and the accents that shoppers leave out do not count. Every string can be written in it,
    emoji included, so there is no unknown token. A word that occurs twice is one token, or those of
    its parts where it ends in another word; a Chinese character is always its own piece, as in
    BERT; no token says whether a blank came before it. The same texts give the same vocabulary:
    WordPiece training would number it at random.

    Args:
        texts: Normalised titles and descriptions.
        vocab_size: Most tokens, at least 300 (256 bytes and the special tokens).
        max_tokens: Texts are cut to this many tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    spellings = [normalizers.Replace(Regex(old), new) for old, new in _SPELLINGS]
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFD(),
            normalizers.Replace(Regex(_OMITTED_MARKS), ""),
            normalizers.NFC(),
            normalizers.Lowercase(),
            *spellings,
        ]
    )
    words = [pre_tokenizers.Whitespace(), pre_tokenizers.Split(Regex(_PIECES), "isolated")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=_MIN_FREQUENCY,
        special_tokens=[PAD, START],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    cut = pre_tokenizers.Sequence(words)
    normalized = (tokenizer.normalizer.normalize_str(text) for text in texts)
    counts = Counter(word for text in normalized for word, _ in cut.pre_tokenize_str(text))
    tokenizer.train_from_iterator(_compounds_apart(counts), trainer)
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


def _compounds_apart(counts: Counter[str]) -> Iterator[str]:
    """Yield every word as often as it occurs, its parts apart, so that no merge bridges them."""
    parts = split_compounds(counts, min_count=_MIN_FREQUENCY)
    for word, count in counts.items():
        for _ in range(count):
            yield " ".join(parts[word])
