"""Texts as words of token ids, and the few words of them that stand for a shopper's query."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from text.encoder import TextEncoder, pad


@dataclass(frozen=True)
class TokenizedText:
    """One text, cut into words.

    Args:
        before: Special tokens before the words.
        words: Token ids of each word.
        keys: One number per word, the same for the same word in every text.
        after: Special tokens after the words.
    """

    before: tuple[int, ...]
    words: tuple[tuple[int, ...], ...]
    keys: tuple[int, ...]
    after: tuple[int, ...]

    def ids(self, positions: Sequence[int] | None = None) -> list[int]:
        """Return the token ids of the words at these positions, or of all, between the specials."""
        words = self.words if positions is None else [self.words[n] for n in positions]
        return [*self.before, *(token for word in words for token in word), *self.after]


@dataclass(frozen=True)
class Views:
    """A batch of titles beside queries made of a few of their words; row n belongs to row n.

    Args:
        title_ids: (B, T) int64, with ``title_mask`` (B, T).
        query_ids: (B, S) int64, with ``query_mask`` (B, S).
        also_answers: Whether title column j holds every word of query row i, bool (B, B): another
            right answer, which must not be taught as a wrong one. True on the diagonal.
    """

    title_ids: Tensor
    title_mask: Tensor
    query_ids: Tensor
    query_mask: Tensor
    also_answers: Tensor


def tokenize_words(encoder: TextEncoder, texts: Sequence[str]) -> list[TokenizedText]:
    """Return every text as words of token ids, cut to the encoder's ``max_tokens``."""
    encoding = encoder.tokenize(texts)
    keys: dict[tuple[int, ...], int] = {}
    rows = []
    for row, ids in enumerate(encoding["input_ids"]):
        words: dict[int, list[int]] = {}
        before: list[int] = []
        after: list[int] = []
        for token, word in zip(ids, encoding.word_ids(row), strict=True):
            if word is not None:
                words.setdefault(word, []).append(token)
            else:
                (after if words else before).append(token)
        pieces = tuple(tuple(word) for word in words.values())
        numbers = tuple(keys.setdefault(word, len(keys)) for word in pieces)
        rows.append(TokenizedText(tuple(before), pieces, numbers, tuple(after)))
    return rows


def build_views(
    texts: Sequence[TokenizedText], *, pad_id: int, generator: np.random.Generator
) -> Views:
    """Return the titles of a batch and one query for each: some of its words, in any order.

    Most queries are short, as shoppers' are; the number of words is uniform on a log scale.
    """
    chosen = [_choose(len(text.words), generator) for text in texts]
    title_ids, title_mask = pad([text.ids() for text in texts], pad_id)
    query_ids, query_mask = pad(
        [text.ids(positions) for text, positions in zip(texts, chosen, strict=True)], pad_id
    )
    return Views(title_ids, title_mask, query_ids, query_mask, _find_answers(texts, chosen))


def _choose(n_words: int, generator: np.random.Generator) -> list[int]:
    if n_words == 0:
        return []
    count = int(np.exp(generator.uniform(0.0, np.log(n_words + 1))))
    return list(generator.permutation(n_words)[:count])


def _find_answers(texts: Sequence[TokenizedText], chosen: Sequence[Sequence[int]]) -> Tensor:
    """Return bool (B, B): whether title j holds all words of query i."""
    keys = np.unique(np.concatenate([np.array(text.keys, dtype=np.int64) for text in texts]))
    titles = np.zeros((len(texts), len(keys)), dtype=np.float32)
    queries = np.zeros_like(titles)
    for row, (text, positions) in enumerate(zip(texts, chosen, strict=True)):
        columns = np.searchsorted(keys, np.array(text.keys, dtype=np.int64))
        titles[row, columns] = 1.0
        queries[row, columns[list(positions)]] = 1.0
    found = queries @ titles.T  # (B, B), how many of the query's words each title has
    return torch.from_numpy(found >= queries.sum(axis=1, keepdims=True))
