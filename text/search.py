"""How well a text is found by a few of its words."""

from collections.abc import Sequence

import numpy as np
import torch

from text.encoder import TextEncoder
from text.views import find_answers, tokenize_words

_QUERIES_AT_A_TIME = 256


def word_query_hit_rate(
    encoder: TextEncoder,
    texts: Sequence[str],
    *,
    k: int = 10,
    n_words: int = 2,
    max_queries: int = 2000,
    seed: int,
    device: torch.device | str | None = None,
) -> float:
    """Return the proportion of texts that are among the k nearest to some of their own words.

    A text that holds all the words of the query as well is no mistake, and takes no place. Texts
    without words are not asked for; 0 if none has any.

    Args:
        encoder: Embeds texts and queries.
        texts: The catalogue that is searched.
        k: Places.
        n_words: Words of a query, in random order; all where the text has no more.
        max_queries: Texts that are asked for, drawn at random where there are more.
        seed: Of the draws.
        device: Where to compute; the encoder is moved there. None leaves it where it is.
    """
    generator = np.random.default_rng(seed)
    tokenized = tokenize_words(encoder, texts)
    askable = [row for row, text in enumerate(tokenized) if text.words]
    if not askable:
        return 0.0
    asked = generator.permutation(askable)[:max_queries]
    chosen = [generator.permutation(len(tokenized[row].words))[:n_words] for row in asked]
    queries = [tokenized[row].ids(rows) for row, rows in zip(asked, chosen, strict=True)]
    words = [
        [tokenized[row].words[n] for n in rows] for row, rows in zip(asked, chosen, strict=True)
    ]
    catalogue = torch.from_numpy(encoder.embed(texts, device=device))  # (N, D)
    embeddings = torch.from_numpy(encoder.embed_ids(queries))  # (number of queries, D)
    hits = 0
    # A few queries at a time, for each needs a score per text.
    for start in range(0, len(asked), _QUERIES_AT_A_TIME):
        part = slice(start, start + _QUERIES_AT_A_TIME)
        scores = embeddings[part] @ catalogue.T
        own = scores.gather(1, torch.from_numpy(asked[part])[:, None])
        wrong = (scores > own) & ~find_answers(words[part], tokenized)
        hits += int((wrong.sum(dim=1) < k).sum())
    return hits / len(asked)
