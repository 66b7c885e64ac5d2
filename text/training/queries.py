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


class Queries(NamedTuple):
    """What some texts of a batch are to be found by."""

    rows: Tensor  # which texts of the batch, int64 (Q,)
    ids: Tensor  # int64 (Q, S)
    mask: Tensor  # int64 (Q, S)
    # Whether the text of query j answers query i, too, and must not be taught as a wrong answer,
    # bool (Q, Q). True on the diagonal.
    also_answers: Tensor

    def to(self, device: torch.device) -> "Queries":
        """Return the same queries on another device."""
        return Queries(*(tensor.to(device) for tensor in self))


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


def draw_queries(
    sources: Sequence[TokenizedText],
    texts: Sequence[TokenizedText],
    *,
    pad_id: int,
    generator: np.random.Generator,
) -> Queries:
    """Return one query for every text whose source has words: some of them, in any order.

    Most queries are short, as shoppers' are: the number of words is uniform on a log scale.

    Args:
        sources: Where a text's query is cut from, such as itself or its category (B).
        texts: What says whether a text answers the query of another: all that is known of it (B).
        pad_id: Token id to pad with.
        generator: Source of every draw.
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
