"""Search a live catalogue by embedding, by words, or by both."""

from collections.abc import Iterable, Mapping, Sequence
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

# Measured in docs/search.md: how fast ranks lose weight, the weight of the list by words beside
# that by embedding (1), and how many places of each list count.
_RANK_OFFSET = 20
_WORDS_WEIGHT, _LIST_LENGTH = 3.0, 500
# With an image, words only re-order the items that are near to image and words together.
_CHANGE_WEIGHT, _NEAR_LENGTH = 0.75, 50


class CatalogueSearch:
    """Finds items of a catalogue and follows its changes.

    Args:
        catalogue: Catalogue to search; changes to it are passed to :meth:`update`.
        lines: Lines that were read on the items' pictures, by item id.
        exact_up_to: Largest catalogue that :meth:`prepare` leaves to exact search.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        lines: Mapping[str, Sequence[str]] = {},
        *,
        exact_up_to: int = EXACT_UP_TO,
    ) -> None:
        self._catalogue = catalogue
        self._exact_up_to = exact_up_to
        self._vectors: VectorIndex = ExactIndex(catalogue)
        self._words = LexicalIndex(catalogue, lines)

    def update(self, rows: Iterable[int]) -> None:
        """Follow the catalogue after items at these rows were added, replaced or deleted."""
        rows = list(rows)
        self._vectors.update(rows)
        self._words.update(rows)

    def set_lines(self, lines: Mapping[str, Sequence[str]]) -> None:
        """Follow the pictures: items, by item id, have these lines on them from now on."""
        self._words.set_lines(lines)

    def prepare(self) -> None:
        """Index the catalogue for many queries: all words, and the embeddings of a large one."""
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
        """Return the ``k`` items that match a query best.

        Args:
            text: Words of the query; None without words.
            vectors: Embedding (D,) of each part that ``query_parts`` returned.
            mask: Rows that may be returned, bool (N,).
            k: Number of items.
            mode: Search by embedding, by words, or by both.
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
        """Return the ``k`` items nearest to a vector; their score is the cosine.

        Items with neither title nor picture have no embedding and are never returned.

        Args:
            query: Vector to compare with, unit length (D,).
            mask: Rows that may be returned, bool (N,).
            k: Number of items.
        """
        return self._vectors.nearest(query, mask & self._catalogue.embedded, k)

    def by_words(self, text: str, mask: NDArray[np.bool_], k: int) -> Nearest:
        """Return the ``k`` best items that contain at least one of the words, by BM25 score.

        Args:
            text: Words to search for.
            mask: Rows that may be returned, bool (N,).
            k: Largest number of items.
        """
        scores = self._words.scores(text)
        rows = np.flatnonzero((scores > 0) & mask)
        return best_rows(torch.from_numpy(rows), torch.from_numpy(scores[rows]), k)

    def _changed(self, query: Tensor, text: str, mask: NDArray[np.bool_], k: int) -> Nearest:
        """Return items near to an image and words together; those with the words come first.

        Words re-order near items only, since most items with the word "blue" have nothing to do
        with the image.
        """
        near = self.by_vector(query, mask, max(k, _NEAR_LENGTH)).rows.cpu()
        nearby = np.zeros_like(mask)
        nearby[near.numpy()] = True
        having = self.by_words(text, nearby, len(near))
        return fuse_ranks([near, having.rows], [1.0, _CHANGE_WEIGHT], k)


def query_parts(
    text: str | None, image: bytes | None, mode: SearchMode
) -> list[tuple[str | None, bytes | None]]:
    """Return the parts of a query to embed, each a text or an image.

    Words and an image are embedded apart, since the sum of their embeddings finds "this, but in
    blue". In lexical mode there is nothing to embed.

    Args:
        text: Words of the query; None without words.
        image: File contents of the image; None without one.
        mode: Search by embedding, by words, or by both.

    Raises:
        InvalidArgumentError: If ``text`` is of another type, or the mode unknown, or lexical for a
            query with an image or without words.
    """
    if not isinstance(text, str | None):
        raise InvalidArgumentError(f"query text must be text or None, got {text!r}")
    if mode not in get_args(SearchMode):
        raise InvalidArgumentError(
            f"mode must be one of {', '.join(get_args(SearchMode))}, got {mode!r}"
        )
    has_text = bool(text and text.strip())
    if mode == "lexical":
        if image or not has_text:
            given = "an image" if image else "no words"
            raise InvalidArgumentError(f"mode lexical must have words and no image, got {given}")
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

    The method is that of Cormack, Clarke and Buettcher (2009,
    https://doi.org/10.1145/1571941.1572114), with weighted rankings and ranks offset by 20 in place
    of 60.

    Args:
        rankings: Rows of each ranking, best first; lengths may differ.
        weights: Weight of each ranking.
        k: Largest number of rows.
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
