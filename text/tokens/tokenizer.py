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

# Pieces that occur this often become part of the vocabulary.
_MIN_FREQUENCY = 2

# Latin, Greek and Cyrillic accents, Hebrew and Arabic vowels and the Arabic stretch. Marks of other
# scripts, such as Thai, Hindi and Japanese, stay: without them a word becomes another word.
_OMITTED_MARKS = (
    "[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0640\u064b-\u065f\u0670]"
)

# Spellings in titles, and what shoppers type instead. Joiners and variation selectors have no key.
_SPELLINGS = (
    ("[\u200c\u200d\ufe00-\ufe0f]", ""),
    ("ß", "ss"),
    ("×", "x"),
    ("[‐‑–—−]", "-"),
    ("′′|[“”„]", '"'),
    ("[‘’ʼ′]", "'"),
)

# These are always separate pieces: ideographs, emoji, numbers ("10cm" is read as "10 cm"), and
# runs of hiragana or katakana.
_PIECES = r"\p{Han}|\p{So}|\p{N}+|\p{Hiragana}+|[\p{Katakana}ー]+"


def train_tokenizer(
    texts: Sequence[str], *, vocab_size: int, max_tokens: int
) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of at most ``vocab_size`` tokens.

    Case is ignored, and so are the accents that shoppers leave out. Every string can be encoded,
    emoji included, so there is no unknown token. A word that occurs twice is one token, or one per
    part if it is a compound. A Chinese character is always a separate piece, as in BERT. Tokens do
    not encode the blank before them. The same texts give the same vocabulary, whereas WordPiece
    training would number it at random.

    Args:
        texts: Normalised titles and descriptions.
        vocab_size: Largest number of tokens, at least 300 (256 bytes and the special tokens).
        max_tokens: Longest text in tokens; longer texts are cut.
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
    # With a start token, a text without words has something to embed.
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
    """Yield every word as often as it occurs, blanks between its parts, so no merge joins them."""
    parts = split_compounds(counts, min_count=_MIN_FREQUENCY)
    for word, count in counts.items():
        for _ in range(count):
            yield " ".join(parts[word])
