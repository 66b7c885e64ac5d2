"""Find items by their words: an inverted index that follows the live catalogue, and BM25."""

import math
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.catalogue.store import Catalogue
from text.tokens.normalize import normalize

# The usual BM25 constants: saturation of repeated words, and discount for long texts.
K1, B = 1.2, 0.75
# How often a word counts that was only read on an item's picture, where a reader makes mistakes.
READ = 0.5

_MAX_CHARACTERS = 10_000
# Shoppers do not type Latin, Greek and Cyrillic accents, Hebrew and Arabic vowels, joiners, or the
# style of an emoji. Marks of other scripts are parts of letters and stay.
_OMITTED = re.compile(
    "[\u0300-\u036f\u0591-\u05c7\u0640\u064b-\u065f\u0670\u200c\u200d\ufe0e\ufe0f]"
)
# Scripts without reliable blanks between words: Thai, Lao, Burmese, Khmer, kana, ideographs and
# Hangul.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
    "\uf900-\ufaff\U00020000-\U0003ffff]+"
)
_SHORTEST_CORRECTED = 5
_JOINERS = "&'’./+_,‐-"
_PLURAL = re.compile(r"(?<=[^\W\d_]{2}[^su])s$")
_PART = re.compile(rf"\d+(?:[.,]\d+)*|[^\d{_JOINERS}]+")


def words(text: str) -> list[str]:
    """Return the words of a text in a spelling that compares equal; words may repeat.

    Case, accents and punctuation are ignored. Words joined by punctuation ("T-shirt", "H&M",
    "1.5l") give each part and all parts together, so they are found however they are typed. In
    scripts without blanks, such as Chinese and Thai, every character and every pair of neighbours
    is a word. An emoji is a word.

    Args:
        text: Any string, of which the first 10,000 characters are read.
    """
    tokens = normalize(text, max_chars=_MAX_CHARACTERS).casefold().split()
    return [word for token in tokens for word in _words_of(token)]


@lru_cache(maxsize=2**16)  # a catalogue's titles repeat their words
def _words_of(token: str) -> tuple[str, ...]:
    """Return the words of a string without blanks, in lower case."""
    plain = _OMITTED.sub("", unicodedata.normalize("NFD", token))
    letters = "".join(map(_spaced, unicodedata.normalize("NFC", plain)))
    pieces = _UNSPACED.sub(r" \g<0> ", letters).split()
    return tuple(word for piece in pieces for word in _split(piece))


def _spaced(character: str) -> str:
    """Return a letter as it is, an emoji between blanks, and a blank for any other character."""
    if character in _JOINERS or (kind := unicodedata.category(character))[0] in "LMN":
        return character
    return f" {character} " if kind == "So" else " "


def _split(piece: str) -> list[str]:
    if _UNSPACED.match(piece):
        return [*piece, *map("".join, pairwise(piece))]
    parts = _PART.findall(piece)
    joined = ["".join(parts)] if len(parts) > 1 else []
    return [_PLURAL.sub("", part) for part in [*parts, *joined]]


class LexicalIndex:
    """Scores items by BM25 (Robertson & Zaragoza, 2009, https://doi.org/10.1561/1500000019).

    The text of an item is its title, the names of its categories and the values of its attributes.
    A word that it lacks, and that was read on the item's picture, counts half, and does not make
    the text longer. Words are weighted as in Lucene, where weights are never negative. A list of
    stop-words is not needed, since frequent words have low weights.

    Args:
        catalogue: Catalogue to search; changes to it are passed to :meth:`update`.
        lines: Lines that were read on the items' pictures, by item id.
    """

    def __init__(self, catalogue: Catalogue, lines: Mapping[str, Sequence[str]] = {}) -> None:
        self._catalogue, self._lines = catalogue, dict(lines)
        self._rows: dict[str, array[int]] = {}  # rows that contain each word
        self._counts: dict[str, array[float]] = {}  # how often each of these rows contains it
        self._words: dict[int, tuple[str, ...]] = {}  # distinct words of each row with words
        self._lengths: array[int] = array("i")  # number of words of each row, with repeats
        self._misspelt: dict[str, set[str]] = {}  # words by their spellings without one letter
        self._changed: set[int] = set(range(len(catalogue)))

    def update(self, rows: Iterable[int]) -> None:
        """Follow the catalogue after items at these rows were added, replaced or deleted."""
        self._changed.update(rows)

    def set_lines(self, lines: Mapping[str, Sequence[str]]) -> None:
        """Follow the pictures: items, by item id, have these lines on them from now on."""
        self._lines |= lines
        self.update(row for row in map(self._catalogue.find, lines) if row is not None)

    def refresh(self) -> None:
        """Index the changed rows now; otherwise the next search does it."""
        if not self._changed:
            return
        changed = sorted(self._changed)
        self._changed.clear()
        self._lengths.extend([0] * (len(self._catalogue) - len(self._lengths)))
        for row in changed:
            self._forget(row)
        item_ids = [self._catalogue.item_ids[row] for row in changed]
        item_ids = [item_id for item_id in item_ids if item_id in self._catalogue]
        rows = self._catalogue.rows(item_ids).tolist()
        items = self._catalogue.records(item_ids)
        for row, item in zip(rows, items.iter_rows(named=True), strict=True):
            read = words(" ".join(self._lines.get(item["item_id"], ())))
            self._add(row, words(_item_text(item)), read)

    def scores(self, text: str) -> NDArray[np.float32]:
        """Return the score of every row (N,), 0 for items without any word of the text."""
        self.refresh()
        lengths = _view(self._lengths).astype(np.float32)
        mean_length = lengths.sum() / max(len(self._words), 1)
        saturation = K1 * (1 - B + B * lengths / max(mean_length, 1))
        scores = np.zeros_like(lengths)
        for word in dict.fromkeys(map(self._known, words(text))):
            if word is None:
                continue
            rows, counts = _view(self._rows[word]), np.frombuffer(self._counts[word], np.float32)
            rarity = math.log1p((len(self._words) - len(rows) + 0.5) / (len(rows) + 0.5))
            scores[rows] += rarity * (K1 + 1) * counts / (counts + saturation[rows])
        return scores

    def _known(self, word: str) -> str | None:
        """Return an indexed word, or else the most frequent one that is one letter off."""
        if word in self._rows:
            return word
        near = {
            known for typed in _without_a_letter(word) for known in self._misspelt.get(typed, ())
        }
        near &= self._rows.keys()
        return max(near, key=lambda known: (len(self._rows[known]), known), default=None)

    def _add(self, row: int, found: Sequence[str], read: Sequence[str]) -> None:
        counts: Mapping[str, float] = dict.fromkeys(read, READ) | Counter(found)
        for word, count in counts.items():
            if word not in self._rows:
                for typed in _without_a_letter(word):
                    self._misspelt.setdefault(typed, set()).add(word)
            self._rows.setdefault(word, array("i")).append(row)
            self._counts.setdefault(word, array("f")).append(count)
        self._lengths[row] = len(found)
        if counts:
            self._words[row] = tuple(counts)

    def _forget(self, row: int) -> None:
        self._lengths[row] = 0
        for word in self._words.pop(row, ()):
            place = int(np.flatnonzero(_view(self._rows[word]) == row)[0])
            del self._rows[word][place], self._counts[word][place]
            if not self._rows[word]:
                del self._rows[word], self._counts[word]


def _without_a_letter(word: str) -> set[str]:
    """Return a word and its spellings without one letter; empty for short words and numbers.

    If two words differ by one missing, added, wrong or swapped letter, their sets overlap.
    """
    if len(word) < _SHORTEST_CORRECTED or not word.isalpha():
        return set()
    return {word, *(word[:place] + word[place + 1 :] for place in range(len(word)))}


def _item_text(item: dict[str, Any]) -> str:
    values = [pair["value"] for pair in item["attributes"]]
    return " ".join(text for text in (item["title"], *item["category"], *values) if text)


def _view(numbers: "array[int]") -> NDArray[np.int32]:
    """Return the numbers without a copy; drop the result before the array next grows."""
    return np.frombuffer(numbers, dtype=np.int32)
