"""Search a live catalogue by vector, by words, or by both."""

from collections.abc import Iterable, Sequence
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from recsys.answers import SearchMode
from recsys.catalogue.embedder import MAX_QUERY_CHARACTERS
from recsys.catalogue.store import Catalogue
from recsys.catalogue.vectors import (
    EXACT_UP_TO,
    ExactIndex,
    Nearest,
    VectorIndex,
    best_rows,
    build_index,
)
from recsys.catalogue.words import LexicalIndex
from recsys.errors import InvalidArgumentError

# First choices, see docs/search.md: how fast ranks lose weight, what the list of words weighs
# beside that of vectors, and places of each list that count.
_RANK_OFFSET = 20
_WORDS_WEIGHT, _LIST_LENGTH = 3.0, 500
# Beside a picture, words only re-order what is near to both.
_CHANGE_WEIGHT, _NEAR_LENGTH = 0.75, 50


class CatalogueSearch:
    """Finds items of a catalogue and follows its changes.

    Args:
        catalogue: Items, which may change.
        exact_up_to: Catalogues up to this size are searched exactly, and larger ones until they are
            prepared.
    """

    def __init__(self, catalogue: Catalogue, *, exact_up_to: int = EXACT_UP_TO) -> None:
        self._catalogue = catalogue
        self._exact_up_to = exact_up_to
        self._vectors: VectorIndex = ExactIndex(catalogue)
        self._words = LexicalIndex(catalogue)

    def update(self, rows: Iterable[int]) -> None:
        """Follow the catalogue, where items at some rows were added, replaced or deleted."""
        rows = list(rows)
        self._vectors.update(rows)
        self._words.update(rows)

    def prepare(self) -> None:
        """Index the catalogue for many queries: its words, and its vectors if they are many."""
        self._words.refresh()
        self._vectors = build_index(self._catalogue, exact_up_to=self._exact_up_to)

    def search(
        self,
        text: str | None,
        vectors: Sequence[Tensor],
        mask: NDArray[np.bool_],
        k: int,
        mode: SearchMode,
    ) -> Nearest:
        """Return the ``k`` items that answer a query.

        Args:
            text: The query's words.
            vectors: Embedding of each of its parts (D,), as ``query_parts`` names them.
            mask: Which rows may be answered (N,).
            k: How many.
            mode: How.
        """
        if mode == "lexical":
            return self.by_words(text or "", mask, k)
        query = F.normalize(torch.stack(list(vectors)).sum(dim=0), dim=0)
        if mode == "vector" or not text:
            return self.by_vector(query, mask, k)
        if len(vectors) > 1:
            return self._changed(query, text, mask, k)
        near = self.by_vector(query, mask, max(k, _LIST_LENGTH))
        having = self.by_words(text, mask, max(k, _LIST_LENGTH))
        return fuse_ranks([near.rows.cpu(), having.rows], [1.0, _WORDS_WEIGHT], k)

    def by_vector(self, query: Tensor, mask: NDArray[np.bool_], k: int) -> Nearest:
        """Return the items nearest to a vector (D,), cosine as their score.

        Items without title and picture have no vector and are not among them.

        Args:
            query: What to search for.
            mask: Which rows may be answered (N,).
            k: How many.
        """
        return self._vectors.nearest(query, mask & self._catalogue.embedded, k)

    def by_words(self, text: str, mask: NDArray[np.bool_], k: int) -> Nearest:
        """Return the items that have the words, BM25 as their score; none if none has any.

        Args:
            text: What to search for.
            mask: Which rows may be answered (N,).
            k: How many.
        """
        scores = self._words.scores(text)
        rows = np.flatnonzero((scores > 0) & mask)
        return best_rows(torch.from_numpy(rows), torch.from_numpy(scores[rows]), k)

    def _changed(self, query: Tensor, text: str, mask: NDArray[np.bool_], k: int) -> Nearest:
        """Return what is near to a picture and words, and of that first what has the words.

        Most items that have the word "blue" have nothing to do with the picture.
        """
        near = self.by_vector(query, mask, max(k, _NEAR_LENGTH)).rows.cpu()
        nearby = np.zeros_like(mask)
        nearby[near.numpy()] = True
        having = self.by_words(text, nearby, len(near))
        return fuse_ranks([near, having.rows], [1.0, _CHANGE_WEIGHT], k)


def query_parts(
    text: str | None, image: bytes | None, mode: SearchMode
) -> list[tuple[str | None, bytes | None]]:
    """Return what of a query is embedded, each with the other part absent: words, picture, both.

    The sum of the two is what "this, but in blue" asks for; nothing is embedded in lexical mode.

    Raises:
        InvalidArgumentError: If the mode is none, or lexical without words or with a picture.
    """
    if mode not in get_args(SearchMode):
        raise InvalidArgumentError(
            f"mode must be one of {', '.join(get_args(SearchMode))}, got {mode!r}"
        )
    has_text = bool(text and text.strip())
    if mode == "lexical":
        if image or not has_text:
            given = "a picture" if image else "no words"
            raise InvalidArgumentError(f"mode lexical must have words and no picture, got {given}")
        if text and len(text) > MAX_QUERY_CHARACTERS:
            raise InvalidArgumentError(
                f"query text must have at most {MAX_QUERY_CHARACTERS} characters, got {len(text)}"
            )
        return []
    parts: list[tuple[str | None, bytes | None]] = []
    if has_text or not image:
        parts.append((text, None))
    return [*parts, (None, image)] if image else parts


def fuse_ranks(rankings: Sequence[Tensor], weights: Sequence[float], k: int) -> Nearest:
    """Return the ``k`` best of several rankings by reciprocal rank fusion; ties by row.

    Cormack, Clarke and Buettcher (2009, https://doi.org/10.1145/1571941.1572114), but that the
    rankings are weighted and ranks are offset by 20, not 60.

    Args:
        rankings: Rows, best first, each list (K,) of its own length.
        weights: Of each ranking.
        k: How many.
    """
    rows, places = torch.cat(list(rankings)).unique(return_inverse=True)
    gains = torch.cat(
        [
            weight / (_RANK_OFFSET + torch.arange(1, len(ranking) + 1))
            for ranking, weight in zip(rankings, weights, strict=True)
        ]
    )
    scores = torch.zeros(len(rows)).index_add(0, places, gains)
    return best_rows(rows, scores, k)
