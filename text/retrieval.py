"""How well texts are found: by a few of their words, by their category, by what goes with them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from text.encoder import TextEncoder
from text.training.queries import find_answers, tokenize_words

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

_QUERIES_AT_A_TIME = 256


class Found(NamedTuple):
    """How texts were found, each by one query.

    A text that answers the query as well is no mistake, and takes no place.
    """

    rows: Ints  # the texts asked for (Q,)
    ranks: Ints  # how many texts that are no answer are as near to the query, or nearer (Q,)

    def hit_rate(self, k: int) -> float:
        """Return the proportion of texts that are among the k nearest; 0 if none was asked for."""
        return float((self.ranks < k).mean()) if len(self.ranks) else 0.0


def find_by_words(
    encoder: TextEncoder,
    texts: Sequence[str],
    embeddings: Floats,
    *,
    n_words: int,
    max_queries: int,
    seed: int,
) -> Found:
    """Return how texts are found by some of their own words; another that holds them answers, too.

    Args:
        encoder: Embeds queries.
        texts: The catalogue that is searched (N). Those without words are not asked for.
        embeddings: Theirs, unit length (N, D).
        n_words: Words of a query, in random order; all where the text has no more.
        max_queries: Texts that are asked for, drawn at random where there are more.
        seed: Of the draws.
    """
    generator = np.random.default_rng(seed)
    tokenized = tokenize_words(encoder, texts)
    askable = [row for row, text in enumerate(tokenized) if text.words]
    asked = generator.permutation(askable)[:max_queries].astype(np.int64)
    chosen = [generator.permutation(len(tokenized[row].words))[:n_words] for row in asked]
    ids = [tokenized[row].ids(rows) for row, rows in zip(asked, chosen, strict=True)]
    words = [
        [tokenized[row].words[n] for n in rows] for row, rows in zip(asked, chosen, strict=True)
    ]
    return _find(
        encoder.embed_ids(ids), embeddings, asked, lambda part: find_answers(words[part], tokenized)
    )


def find_by_category(
    encoder: TextEncoder,
    categories: Sequence[Sequence[str]],
    embeddings: Floats,
    *,
    max_queries: int,
    seed: int,
) -> Found:
    """Return how texts are found by the name of their category; others of that name answer, too.

    Args:
        encoder: Embeds queries.
        categories: The path of every text (N), of which the last part is asked for; empty where
            unknown.
        embeddings: The texts', unit length (N, D).
        max_queries: Texts that are asked for, drawn at random where there are more.
        seed: Of the draw.
    """
    leaves = [path[-1] if path else None for path in categories]
    names = sorted({leaf for leaf in leaves if leaf is not None})
    code_of = {name: code for code, name in enumerate(names)}
    codes = np.array([-1 if leaf is None else code_of[leaf] for leaf in leaves], dtype=np.int64)
    asked = np.random.default_rng(seed).permutation(np.flatnonzero(codes >= 0))[:max_queries]
    queries = encoder.embed(names)[codes[asked]]
    # A text of unknown category may belong to any: it is neither right nor wrong.
    open_to_all = codes == -1
    return _find(
        queries,
        embeddings,
        asked,
        lambda part: torch.from_numpy((codes[asked[part], None] == codes) | open_to_all),
    )


def find_by_partner(embeddings: Floats, pairs: Ints, *, max_queries: int, seed: int) -> Found:
    """Return how texts are found by one that goes with them; others that do so answer, too.

    Args:
        embeddings: Of the texts, unit length (N, D).
        pairs: Rows of two that go together, int64 (P, 2).
        max_queries: Pairs that are asked for, drawn at random where there are more.
        seed: Of the draw.
    """
    chosen = np.random.default_rng(seed).permutation(pairs)[:max_queries]
    asked, partners = chosen.T
    count = len(embeddings)
    itself = np.tile(np.arange(count)[:, None], 2)
    ends = np.concatenate([pairs, pairs[:, ::-1], itself]).T
    links = csr_array((np.ones(ends.shape[1]), (ends[0], ends[1])), shape=(count, count))
    return _find(
        embeddings[partners],
        embeddings,
        asked,
        lambda part: torch.from_numpy(links[partners[part]].toarray() > 0),
    )


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

    Args:
        encoder: Embeds texts and queries.
        texts: The catalogue that is searched; 0 if none has a word.
        k: Places.
        n_words: As of ``find_by_words``.
        max_queries: As of ``find_by_words``.
        seed: Of the draws.
        device: Where to compute; the encoder is moved there. None leaves it where it is.
    """
    embeddings = encoder.embed(texts, device=device)
    found = find_by_words(
        encoder, texts, embeddings, n_words=n_words, max_queries=max_queries, seed=seed
    )
    return found.hit_rate(k)


def _find(
    queries: Floats, embeddings: Floats, asked: Ints, answers: Callable[[slice], Tensor]
) -> Found:
    """Return the ranks of the asked texts (Q,), given what answers each part of the queries."""
    catalogue, ranks = torch.from_numpy(embeddings), []
    # A few queries at a time, for each needs a score per text.
    for start in range(0, len(asked), _QUERIES_AT_A_TIME):
        part = slice(start, start + _QUERIES_AT_A_TIME)
        scores = torch.from_numpy(queries[part]) @ catalogue.T
        own = scores.gather(1, torch.from_numpy(asked[part])[:, None])
        # What is as near could as well come first.
        wrong = (scores >= own) & ~answers(part)
        ranks.append(wrong.sum(dim=1).numpy())
    return Found(asked, np.concatenate(ranks) if ranks else np.empty(0, dtype=np.int64))
