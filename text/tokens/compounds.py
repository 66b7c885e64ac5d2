"""Split compound words, as German, Dutch, Japanese and Korean have them."""

from collections.abc import Mapping, Set

# Fewest letters of the first and of the last part. In scripts that write a syllable as one
# character, parts may be shorter.
_SHORTEST = (3, 4)
_SHORTEST_SYLLABLES = (2, 2)


def split_compounds(counts: Mapping[str, int], *, min_count: int = 2) -> dict[str, list[str]]:
    """Return the parts of every word; most words are one part.

    A word is split before the longest other word that it ends in, so "lederhandtasche" is split
    before "handtasche": languages with compounds put the kind of thing last. Both parts are split
    in the same way, so a word has the same parts on its own and at the end of another.

    This is much simpler than Koehn and Knight (2003, https://aclanthology.org/E03-1076/), who
    compare all ways to cover a word with known words. Here the first part may be unknown.

    Args:
        counts: Number of occurrences of each lower-case word.
        min_count: Fewest occurrences of a word that others are split at.
    """
    known = {word for word, count in counts.items() if count >= min_count and word.isalpha()}
    return {word: _split(word, known) for word in counts}


def _split(word: str, known: Set[str]) -> list[str]:
    first, last = _SHORTEST_SYLLABLES if _is_syllabic(word) else _SHORTEST
    for start in range(first, len(word) - last + 1):  # the longest end first
        if word[start:] in known:
            return [*_split(word[:start], known), *_split(word[start:], known)]
    return [word]


def _is_syllabic(word: str) -> bool:
    return all("\u3041" <= letter <= "\u30ff" or "\uac00" <= letter <= "\ud7a3" for letter in word)
