"""Clean a title without changing what it says."""

import re
import unicodedata

from text.errors import InvalidArgumentError

# NFKC would join these to the word before ("Acme™" becomes "AcmeTM"), so they are removed first.
_MARKS = re.compile("[™℠®©]")

# NFKC would join these to the number before ("1½" becomes "11⁄2", "10²" becomes "102").
_SMALL = "²³¹¼-¾⁰-⁹₀-₉⅐-⅞↉①-⒛"
_BETWEEN_NUMBERS = re.compile(rf"(?<=[\d{_SMALL}])(?=[{_SMALL}])|(?<=[{_SMALL}])(?=\d)")

# Emoji families, Indic and Persian words need joiners; all other format characters are dropped.
_JOINERS = frozenset("\u200c\u200d")

# NFKC turns one character into up to 18 (U+FDFA), and sorting a long run of accents is quadratic,
# so only the first `_READ_FACTOR * max_chars` characters are read.
_READ_FACTOR = 8


def normalize(text: str, *, max_chars: int = 2000) -> str:
    """Return the text in one canonical spelling, of at most ``max_chars`` characters.

    Unicode NFKC replaces full-width letters, ligatures, fractions and circled digits by plain
    ones. Control characters, invisible characters and trademark signs are removed, and every run
    of white space becomes one blank. Letters of any script, accents, case, punctuation, emoji and
    sizes stay. ``normalize(normalize(x))`` equals ``normalize(x)``.

    Args:
        text: Any string; lone surrogates are dropped.
        max_chars: Longest result, in characters; the rest is cut off.

    Raises:
        InvalidArgumentError: If ``max_chars`` is not positive.
    """
    if max_chars < 1:
        raise InvalidArgumentError(f"max_chars must be at least 1, got {max_chars}")
    text = _MARKS.sub(" ", text[: _READ_FACTOR * max_chars])
    visible = "".join(character for character in text if _is_kept(character))
    composed = unicodedata.normalize("NFKC", _BETWEEN_NUMBERS.sub(" ", visible))
    composed = composed.replace("\u2044", "/")  # the slash of a fraction, which nobody types
    return " ".join(composed.split())[:max_chars].rstrip()


def _is_kept(character: str) -> bool:
    if character.isspace() or character in _JOINERS:
        return True
    return unicodedata.category(character) not in {"Cc", "Cf", "Cs"}
