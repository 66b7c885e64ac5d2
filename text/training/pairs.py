"""Texts that go together, such as titles of products bought together."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from text.encoder import pad
from text.training.queries import Queries, TokenizedText


class Pairs:
    """Pairs of texts that go together; texts with the same words count as one text.

    Args:
        texts: All texts (n).
        pairs: Pairs of rows that go together, int64 (P, 2), in either order. Repeated pairs are
            drawn more often. Pairs with the same words are dropped, as they teach nothing.
    """

    def __init__(self, texts: Sequence[TokenizedText], pairs: NDArray[np.int64]) -> None:
        said = {text.words: text for text in texts}
        positions = {words: position for position, words in enumerate(said)}
        self._groups = np.array([positions[text.words] for text in texts], dtype=np.int64)
        self._texts = list(said.values())
        left, right = self._groups[np.concatenate([pairs, pairs[:, ::-1]])].T
        left, right = left[left != right], right[left != right]
        order = np.argsort(left, kind="stable")
        self._partners = right[order]
        self._starts = np.searchsorted(left[order], np.arange(len(said) + 1))
        ones = np.ones(len(left), dtype=np.int64)
        self._links = csr_array((ones, (left, right)), shape=(len(said), len(said)))

    def draw(self, rows: Sequence[int], *, pad_id: int, generator: np.random.Generator) -> Queries:
        """Return a random partner for every row that has one, as queries that should find it.

        Other partners of a row, and texts with the same words, also count as its answers.

        Args:
            rows: Rows of the texts of a batch (B).
            pad_id: Token id to pad with.
            generator: Random generator.
        """
        groups = self._groups[rows]
        starts, ends = self._starts[groups], self._starts[groups + 1]
        paired = np.flatnonzero(ends > starts)
        own = groups[paired]
        partners = self._partners[generator.integers(starts[paired], ends[paired])]
        linked = self._links[partners][:, own].toarray() > 0
        same = partners[:, None] == own
        ids, mask = pad([self._texts[partner].ids() for partner in partners], pad_id)
        return Queries(torch.from_numpy(paired), ids, mask, torch.from_numpy(linked | same))
