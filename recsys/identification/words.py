"""Words read on a photo, compared with the words of each product."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from recsys.catalogue.store import Catalogue
from recsys.catalogue.words import words
from recsys.data.arrays import Bools, Doubles, Floats, Ints
from vision.words import Lines

N_LETTERS = 3  # length of the pieces by which words are compared
MIN_SEEN = 0.6  # share of a word's pieces from which the word counts as seen
DESCRIPTION = 0.5  # weight of a word that only the description has
EVIDENCE = 10.0  # rarity of all seen words together at which their shares count half


class WordScores(NamedTuple):
    """What the words on photos say about each product."""

    values: Floats  # (B, N), 0 to 1
    present: Bools  # (B, N): whether the photo has words, and the product


class WordIndex:
    """Compares words that were read on photos with those of a catalogue, and follows its changes.

    A reader makes mistakes, and joins words that stand close together. A word of the catalogue is
    therefore seen on a photo to the degree that its runs of three letters are, like the q-grams of
    Ukkonen (1992, https://doi.org/10.1016/0304-3975(92)90143-4), but counted for the word of the
    catalogue alone. The value of a product is the share that its words have of all seen words, each
    weighted by its rarity, and is smaller while little was seen.

    Args:
        catalogue: Catalogue of the products. Their words are those of titles, categories,
            attributes and descriptions.
        lines: Lines read on the shop's pictures, by item id; their words are the product's, too.
    """

    def __init__(self, catalogue: Catalogue, lines: Mapping[str, Lines]) -> None:
        self._catalogue, self._lines = catalogue, lines
        self._without_lines: set[str] = set()
        self._words: dict[str, int] = {}
        self._pieces: dict[str, int] = {}
        self._pieces_of: list[list[int]] = []  # of each word
        self._revisions = catalogue.revisions.copy()
        self._changed: dict[int, Mapping[int, float]] = {}  # weights by word of each changed row
        rows = self._weights(range(len(catalogue)))
        self._weights_of = _matrix(rows, len(self._words))  # (N, V)
        self._changed_weights_of = _matrix([], len(self._words))
        self._pieces_matrix = self._build_pieces()
        having = np.bincount(self._weights_of.indices, minlength=len(self._words))
        self._rarity: Doubles = np.log1p((len(rows) - having + 0.5) / (having + 0.5))

    def scores(self, lines: Sequence[Lines]) -> WordScores:
        """Return what the lines read on B photos say about each of the N products."""
        self._refresh()
        seen = sparse.csr_array(self._seen(lines) * self._rarity)  # (B, V)
        total = seen.sum(axis=1)
        values = np.zeros((len(lines), len(self._catalogue)))
        having = np.zeros(len(self._catalogue), dtype=np.bool_)
        bundled, n_words = self._weights_of.shape
        values[:, :bundled] = (seen[:, :n_words] @ self._weights_of.T).toarray()
        having[:bundled] = np.diff(self._weights_of.indptr) > 0
        if self._changed:
            rows = list(self._changed)
            values[:, rows] = (seen @ self._changed_weights_of.T).toarray()
            having[rows] = np.diff(self._changed_weights_of.indptr) > 0
        values /= (EVIDENCE + total)[:, None]
        return WordScores(values.astype(np.float32), (total > 0)[:, None] & having)

    def replace_pictures(self, item_ids: Iterable[str]) -> None:
        """Ignore the lines of items that got another picture."""
        self._set_lines(item_ids, self._without_lines.add)

    def reset_pictures(self, item_ids: Iterable[str]) -> None:
        """Use the lines of items again whose picture is the first one again."""
        self._set_lines(item_ids, self._without_lines.discard)

    def _set_lines(self, item_ids: Iterable[str], change: Any) -> None:
        for item_id in item_ids:
            change(item_id)
            if item_id in self._lines:
                self._revisions[self._catalogue.rows([item_id])] = 0  # so that it is read again

    def _refresh(self) -> None:
        """Follow the catalogue: index the rows that were written since the last call."""
        current = self._catalogue.revisions
        missing = np.zeros(len(current) - len(self._revisions), dtype=np.int64)
        rows = np.flatnonzero(np.append(self._revisions, missing) != current)
        if not len(rows):
            return
        self._revisions = current.copy()
        n_known = len(self._words)
        self._changed.update(zip(rows.tolist(), self._weights(rows.tolist()), strict=True))
        self._changed_weights_of = _matrix(list(self._changed.values()), len(self._words))
        if len(self._words) > n_known:
            self._pieces_matrix = self._build_pieces()
            # A new word is as rare as a word can be.
            rarest = np.log1p((len(current) + 0.5) / 0.5)
            new = np.full(len(self._words) - n_known, rarest)
            self._rarity = np.concatenate([self._rarity, new])

    def _weights(self, rows: Sequence[int]) -> list[Mapping[int, float]]:
        """Return the weight of each word of these rows; words get a number when first met."""
        found: list[Mapping[int, float]] = []
        for item in self._catalogue.at(rows).iter_rows(named=True):
            item_id = item["item_id"]
            lines = () if item_id in self._without_lines else self._lines.get(item_id, ())
            weights = {self._number(word): DESCRIPTION for word in words(item["description"] or "")}
            found.append(weights | {self._number(word): 1.0 for word in _short_words(item, lines)})
        return found

    def _number(self, word: str) -> int:
        number = self._words.setdefault(word, len(self._words))
        if number == len(self._pieces_of):
            known = self._pieces
            self._pieces_of.append([known.setdefault(one, len(known)) for one in _pieces(word)])
        return number

    def _build_pieces(self) -> sparse.csr_array:
        """Return the share of each piece in each word (V, G)."""
        shares = [dict.fromkeys(pieces, 1 / len(pieces)) for pieces in self._pieces_of]
        return _matrix(shares, len(self._pieces))

    def _seen(self, lines: Sequence[Lines]) -> sparse.csr_array:
        """Return to which degree each photo shows each word of the catalogue (B, V)."""
        read = []
        for of_photo in lines:
            found = set(chain.from_iterable(map(_pieces, words(" ".join(of_photo)))))
            read.append({self._pieces[one]: 1.0 for one in found if one in self._pieces})
        shares = sparse.csr_array(_matrix(read, len(self._pieces)) @ self._pieces_matrix.T)
        shares.data[shares.data < MIN_SEEN - 1e-9] = 0.0  # a share may be rounded down
        shares.eliminate_zeros()
        return shares


def _short_words(item: Mapping[str, Any], lines: Lines) -> list[str]:
    """Return the words of everything that tells of a product, but its description."""
    values = [pair["value"] for pair in item["attributes"]]
    parts = (item["title"], *item["category"], *values, *lines)
    return words(" ".join(part for part in parts if part))


def _pieces(word: str) -> list[str]:
    """Return the different runs of three letters of a word; a shorter word is its only piece."""
    runs = range(max(1, len(word) - N_LETTERS + 1))
    return list(dict.fromkeys(word[start : start + N_LETTERS] for start in runs))


def _matrix(rows: Sequence[Mapping[int, float]], n_columns: int) -> sparse.csr_array:
    """Return a matrix (n, n_columns) from the values of each row by column."""
    starts = np.cumsum([0, *map(len, rows)])
    columns: Ints = np.fromiter(chain.from_iterable(rows), np.int64, count=starts[-1])
    values = chain.from_iterable(row.values() for row in rows)
    data: Doubles = np.fromiter(values, np.float64, count=starts[-1])
    return sparse.csr_array((data, columns, starts), shape=(len(rows), n_columns))
