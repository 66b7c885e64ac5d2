"""Texts as words of token ids, and queries: a few of these words, as a shopper would type them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from text.encoder import TextEncoder, pad


@dataclass(frozen=True)
class TokenizedText:
    """One text, split into words.

    Attributes:
        before: Special tokens before the words.
        words: Token ids of each word; equal words have equal ids.
        after: Special tokens after the words.
    """

    before: tuple[int, ...]
    words: tuple[tuple[int, ...], ...]
    after: tuple[int, ...]

    def ids(self, positions: Sequence[int] | None = None) -> list[int]:
        """Return token ids of these words, or of all words, between the special tokens."""
        words = self.words if positions is None else [self.words[n] for n in positions]
        return [*self.before, *(token for word in words for token in word), *self.after]


class Queries(NamedTuple):
    """Queries that should find some of the texts of a batch."""

    rows: Tensor  # position in the batch of the text that each should find, int64 (Q,)
    ids: Tensor  # token ids, int64 (Q, S)
    mask: Tensor  # 0 for padding, int64 (Q, S)
    # Whether the text of query j also answers query i, so that it is not used as a negative, bool
    # (Q, Q); true on the diagonal.
    also_answers: Tensor

    def to(self, device: torch.device) -> "Queries":
        """Return the same queries on another device."""
        return Queries(*(tensor.to(device) for tensor in self))


def tokenize_words(encoder: TextEncoder, texts: Sequence[str]) -> list[TokenizedText]:
    """Return the texts as words of token ids, cut to the encoder's ``max_tokens``."""
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


def draw_queries(
    sources: Sequence[TokenizedText],
    texts: Sequence[TokenizedText],
    *,
    pad_id: int,
    generator: np.random.Generator,
) -> Queries:
    """Return a query for each text whose source has words: some of its words, in any order.

    Most queries are short, as those of shoppers are: the logarithm of their length is uniform.

    Args:
        sources: Words to draw the query of each text from, such as its title or category (B).
        texts: All words known of each text (B); a text answers every query whose words it has.
        pad_id: Token id to pad with.
        generator: Random generator.
    """
    rows = [row for row, source in enumerate(sources) if source.words]
    chosen = [_choose(len(sources[row].words), generator) for row in rows]
    asked = list(zip((sources[row] for row in rows), chosen, strict=True))
    ids, mask = pad([source.ids(positions) for source, positions in asked], pad_id)
    words = [[source.words[n] for n in positions] for source, positions in asked]
    answers = find_answers(words, [texts[row] for row in rows])
    return Queries(torch.tensor(rows, dtype=torch.int64), ids, mask, answers)


def _choose(n_words: int, generator: np.random.Generator) -> list[int]:
    count = int(np.exp(generator.uniform(0.0, np.log(n_words + 1))))
    return [int(position) for position in generator.permutation(n_words)[:count]]


def find_answers(
    queries: Sequence[Sequence[tuple[int, ...]]], texts: Sequence[TokenizedText]
) -> Tensor:
    """Return whether each text has every word of each query, bool (number of queries, B)."""
    columns: dict[tuple[int, ...], int] = {}
    asked = [[columns.setdefault(word, len(columns)) for word in query] for query in queries]
    known = [[columns[word] for word in text.words if word in columns] for text in texts]
    counts, holds = (_marked(rows, len(columns)) for rows in (asked, known))
    return counts @ holds.T >= counts.sum(dim=1, keepdim=True)


def _marked(rows: Sequence[Sequence[int]], n_columns: int) -> Tensor:
    """Return 1 at these columns of each row and 0 elsewhere (number of rows, n_columns)."""
    marked = torch.zeros(len(rows), n_columns)
    places = [(row, column) for row, columns in enumerate(rows) for column in columns]
    marked[tuple(torch.tensor(places, dtype=torch.int64).view(-1, 2).T)] = 1.0
    return marked
