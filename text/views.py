"""Texts as words of token ids, and the few words of them that stand for a shopper's query."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from text.encoder import TextEncoder, pad


@dataclass(frozen=True)
class TokenizedText:
    """One text, cut into words.

    Attributes:
        before: Special tokens before the words.
        words: Token ids of each word; equal words have equal ids.
        after: Special tokens after the words.
    """

    before: tuple[int, ...]
    words: tuple[tuple[int, ...], ...]
    after: tuple[int, ...]

    def ids(self, positions: Sequence[int] | None = None) -> list[int]:
        """Return token ids of the words at these positions, or of all, with the special tokens."""
        words = self.words if positions is None else [self.words[n] for n in positions]
        return [*self.before, *(token for word in words for token in word), *self.after]


class Views(NamedTuple):
    """Titles beside queries made of a few of their words; row n belongs to row n."""

    title_ids: Tensor  # int64 (B, T)
    title_mask: Tensor  # (B, T)
    query_ids: Tensor  # int64 (B, S)
    query_mask: Tensor  # (B, S)
    # Whether title j holds every word of query i, bool (B, B): another right answer, which must not
    # be taught as a wrong one. True on the diagonal.
    also_answers: Tensor

    def to(self, device: torch.device) -> "Views":
        """Return the same views on another device."""
        return Views(*(tensor.to(device) for tensor in self))


def tokenize_words(encoder: TextEncoder, texts: Sequence[str]) -> list[TokenizedText]:
    """Return every text as words of token ids, cut to the encoder's ``max_tokens``."""
    if not texts:
        return []
    rows = []
    for encoding in encoder.tokenize(texts).encodings or []:
        words: dict[int, list[int]] = {}
        before: list[int] = []
        after: list[int] = []
        for token, word in zip(encoding.ids, encoding.word_ids, strict=True):
            if word is not None:
                words.setdefault(word, []).append(token)
            else:
                (after if words else before).append(token)
        pieces = tuple(tuple(word) for word in words.values())
        rows.append(TokenizedText(tuple(before), pieces, tuple(after)))
    return rows


def build_views(
    texts: Sequence[TokenizedText], *, pad_id: int, generator: np.random.Generator
) -> Views:
    """Return the texts of a batch and one query for each: some of its words, in any order.

    Most queries are short, as shoppers' are: the number of words is uniform on a log scale.

    Args:
        texts: B texts.
        pad_id: Token id to pad with.
        generator: Source of every draw.
    """
    chosen = [_choose(len(text.words), generator) for text in texts]
    title_ids, title_mask = pad([text.ids() for text in texts], pad_id)
    query_ids, query_mask = pad(
        [text.ids(positions) for text, positions in zip(texts, chosen, strict=True)], pad_id
    )
    queries = [[text.words[n] for n in rows] for text, rows in zip(texts, chosen, strict=True)]
    return Views(title_ids, title_mask, query_ids, query_mask, find_answers(queries, texts))


def _choose(n_words: int, generator: np.random.Generator) -> list[int]:
    if n_words == 0:
        return []
    count = int(np.exp(generator.uniform(0.0, np.log(n_words + 1))))
    return [int(position) for position in generator.permutation(n_words)[:count]]


def find_answers(
    queries: Sequence[Sequence[tuple[int, ...]]], texts: Sequence[TokenizedText]
) -> Tensor:
    """Return whether each text holds every word of each query, bool (number of queries, B)."""
    columns: dict[tuple[int, ...], int] = {}
    asked = [[columns.setdefault(word, len(columns)) for word in query] for query in queries]
    counts = torch.zeros(len(queries), len(columns))
    holds = torch.zeros(len(texts), len(columns))
    for row, query in enumerate(asked):
        counts[row, query] = 1.0
    for row, text in enumerate(texts):
        holds[row, [columns[word] for word in set(text.words) if word in columns]] = 1.0
    return counts @ holds.T >= counts.sum(dim=1, keepdim=True)
