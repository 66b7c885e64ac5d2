"""Measure an encoder on a catalogue."""

import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from text.dataset import Samples
from text.encoder import TextEncoder
from text.errors import InvalidArgumentError
from text.report.metrics import search_result, target_result
from text.report.results import TextReport
from text.retrieval import Found, find_by_category, find_by_partner, find_by_words
from text.tokens.normalize import normalize

WORDS = {"one word": 1, "two words": 2, "four words": 4}
NO_LETTERS = "no letters"

# Japanese mixes three scripts in one text.
_SCRIPTS = {"CJK": "Chinese or Japanese", "HIRAGANA": "Japanese", "KATAKANA": "Japanese"}


def evaluate_encoder(
    encoder: TextEncoder,
    samples: Samples,
    *,
    max_queries: int = 2_000,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> TextReport:
    """Return the encoder's results on a catalogue.

    Targets, categories and pairs are each measured where the samples have them. The same arguments
    give the same report.

    Args:
        encoder: Encoder to measure; it stays in training or evaluation mode.
        samples: Texts of the catalogue; their pairs should be unknown to training.
        max_queries: Largest number of queries of each kind; if there are more texts, some are
            drawn.
        seed: Random seed for the queries and the intervals.
        device: Device to move the encoder to; None leaves it where it is.
        progress: Whether to show a progress bar.

    Raises:
        InvalidArgumentError: If no text has a word.
    """
    embeddings = encoder.embed(samples.texts, device=device, progress=progress)
    found = _search(encoder, samples, embeddings, max_queries, seed)
    by_words = found["two words"]
    if len(by_words.rows) == 0:
        raise InvalidArgumentError(
            f"samples must have a text with a word, got {len(samples)} texts without words"
        )
    scripts = np.array([script(samples.texts[row]) for row in by_words.rows])
    names = [name for name, _ in Counter(scripts.tolist()).most_common()]
    targets = {
        target: target_result(embeddings, labels, seed=seed)
        for target, labels in samples.targets.items()
    }
    return TextReport(
        encoder=type(encoder.backbone).__name__,
        dim=encoder.dim,
        n_texts=len(samples),
        searches={
            name: search_result(one.ranks, seed=seed)
            for name, one in found.items()
            if len(one.rows)
        },
        scripts={name: search_result(by_words.ranks[scripts == name], seed=seed) for name in names},
        targets={target: one for target, one in targets.items() if one is not None},
    )


def _search(
    encoder: TextEncoder,
    samples: Samples,
    embeddings: NDArray[np.float32],
    max_queries: int,
    seed: int,
) -> dict[str, Found]:
    """Return how texts are found by each kind of query that the samples allow."""
    texts: Sequence[str] = samples.texts
    found = {
        name: find_by_words(
            encoder, texts, embeddings, n_words=count, max_queries=max_queries, seed=seed
        )
        for name, count in WORDS.items()
    }
    if any(samples.categories):
        found["category"] = find_by_category(
            encoder, samples.categories, embeddings, max_queries=max_queries, seed=seed
        )
    if len(samples.pairs):
        found["what goes with it"] = find_by_partner(
            embeddings, samples.pairs, max_queries=max_queries, seed=seed
        )
    return found


def script(text: str) -> str:
    """Return the script of most letters, by its Unicode name, such as Latin or Cyrillic."""
    names = (unicodedata.name(letter, "") for letter in normalize(text) if letter.isalpha())
    counts = Counter(name.partition(" ")[0] for name in names)
    if counts["HIRAGANA"] + counts["KATAKANA"] > 0:
        counts["KATAKANA"] += counts.pop("CJK", 0)
    if not counts:
        return NO_LETTERS
    first = counts.most_common(1)[0][0]
    return _SCRIPTS.get(first, first.capitalize())
