"""Words that end in another word: German and Dutch compounds, Japanese and Korean ones."""

from collections.abc import Mapping, Set

# Of letters that a word is cut into, the shortest first and last part. Parts of scripts that write
# a syllable in a character are shorter.
_SHORTEST = (3, 4)
_SHORTEST_SYLLABLES = (2, 2)


def split_compounds(counts: Mapping[str, int], *, min_count: int = 2) -> dict[str, list[str]]:
    """Return every word as the parts it is made of, most often itself alone.

    A word is cut before the longest other word that it ends in, as "lederhandtasche" is before
    "handtasche": the languages that glue words together put what a thing is last. Both parts are
    cut in the same way, so that a word is the same parts alone and as the end of another.

    A much simpler relative of Koehn and Knight (2003, https://aclanthology.org/E03-1076/), who
    weigh all ways to cover a word with known ones: the first part need not be known here.

    Args:
        counts: How often each lower-case word occurs.
        min_count: Occurrences, as a word of its own, that make a word known.
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
