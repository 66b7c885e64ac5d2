"""Measure how well texts are found by a few of their words, their category, or a partner."""

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
    """The ranks at which texts were found, one query each.

    Other texts that answer the query are not counted as mistakes: they take no rank.
    """

    rows: Ints  # row of the text that each query looks for (Q,)
    ranks: Ints  # number of wrong texts at least as near to the query (Q,)

    def hit_rate(self, k: int) -> float:
        """Return the proportion of texts with fewer than k wrong ones before them; 0 if Q is 0."""
        return float((self.ranks < k).mean()) if len(self.ranks) else 0.0


def find_by_words(
    encoder: TextEncoder,
    texts: Sequence[str],
    embeddings: Floats,
    *,
    n_words: int,
    max_queries: int,
    seed: int,
    n_asked: int | None = None,
) -> Found:
    """Return how texts are found by some of their own words.

    Every text that contains all words of a query answers it.

    Args:
        encoder: Encoder of the queries.
        texts: Texts to search (N). Texts without words get no query.
        embeddings: Embeddings of the texts, unit length (N, D).
        n_words: Words of a query, in random order; a shorter text gives all of its words.
        max_queries: Largest number of queries; if there are more texts, some are drawn.
        seed: Random seed for texts and words.
        n_asked: Number of texts, the first ones, that queries may look for; None is all of them.
    """
    generator = np.random.default_rng(seed)
    tokenized = tokenize_words(encoder, texts)
    askable = [row for row, text in enumerate(tokenized[:n_asked]) if text.words]
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
    """Return how texts are found by the name of their category.

    The query is the last part of the path. Every text of that category answers it.

    Args:
        encoder: Encoder of the queries.
        categories: Category path of every text (N), empty where unknown.
        embeddings: Embeddings of the texts, unit length (N, D).
        max_queries: Largest number of queries; if there are more texts, some are drawn.
        seed: Random seed for the texts.
    """
    leaves = [path[-1] if path else None for path in categories]
    names = sorted({leaf for leaf in leaves if leaf is not None})
    code_of = {name: code for code, name in enumerate(names)}
    codes = np.array([-1 if leaf is None else code_of[leaf] for leaf in leaves], dtype=np.int64)
    asked = np.random.default_rng(seed).permutation(np.flatnonzero(codes >= 0))[:max_queries]
    queries = encoder.embed(names)[codes[asked]]
    # A text of unknown category may belong to any, so it is never counted as wrong.
    open_to_all = codes == -1
    return _find(
        queries,
        embeddings,
        asked,
        lambda part: torch.from_numpy((codes[asked[part], None] == codes) | open_to_all),
    )


def find_by_partner(embeddings: Floats, pairs: Ints, *, max_queries: int, seed: int) -> Found:
    """Return how texts are found by another text that goes with them.

    The query is the embedding of the partner. Every text that goes with the partner answers it.

    Args:
        embeddings: Embeddings of the texts, unit length (N, D).
        pairs: Rows of two texts that go together, int64 (P, 2).
        max_queries: Largest number of queries; if there are more pairs, some are drawn.
        seed: Random seed for the pairs.
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

    The result is 0 if no text has a word.

    Args:
        encoder: Encoder of texts and queries.
        texts: Texts to search.
        k: Number of places that count as found.
        n_words: As for ``find_by_words``.
        max_queries: As for ``find_by_words``.
        seed: Random seed for texts and words.
        device: Device to move the encoder to; None leaves it where it is.
    """
    embeddings = encoder.embed(texts, device=device)
    found = find_by_words(
        encoder, texts, embeddings, n_words=n_words, max_queries=max_queries, seed=seed
    )
    return found.hit_rate(k)


def _find(
    queries: Floats, embeddings: Floats, asked: Ints, answers: Callable[[slice], Tensor]
) -> Found:
    """Return the ranks of the asked texts (Q,).

    Args:
        queries: Embeddings of the queries (Q, D).
        embeddings: Embeddings of the texts (N, D).
        asked: Row of the text that each query looks for (Q,).
        answers: Function from a slice of the queries to which texts answer them, bool (q, N).
    """
    catalogue, ranks = torch.from_numpy(embeddings), []
    # In blocks of queries, since each query has a score per text.
    for start in range(0, len(asked), _QUERIES_AT_A_TIME):
        part = slice(start, start + _QUERIES_AT_A_TIME)
        scores = torch.from_numpy(queries[part]) @ catalogue.T
        own = scores.gather(1, torch.from_numpy(asked[part])[:, None])
        # A wrong text that is just as near could come first.
        wrong = (scores >= own) & ~answers(part)
        ranks.append(wrong.sum(dim=1).numpy())
    return Found(asked, np.concatenate(ranks) if ranks else np.empty(0, dtype=np.int64))
