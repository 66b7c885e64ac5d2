"""Clean a title without changing what it says."""

import re
import unicodedata

from text.errors import InvalidArgumentError

# NFKC would glue these to the word before them ("Acme™" becomes "AcmeTM"), so they go first.
_MARKS = re.compile("[™℠®©]")

# NFKC would run these into the number before them ("1½" becomes "11⁄2", "10²" becomes "102").
_SMALL = "²³¹¼-¾⁰-⁹₀-₉⅐-⅞↉①-⒛"
_BETWEEN_NUMBERS = re.compile(rf"(?<=[\d{_SMALL}])(?=[{_SMALL}])|(?<=[{_SMALL}])(?=\d)")

# Joiners shape emoji families and Indic or Persian words; every other format character is dropped.
_JOINERS = frozenset("\u200c\u200d")

# One character may stand for up to 18 (U+FDFA), and sorting a long run of accents is quadratic, so
# only this many times `max_chars` characters are looked at.
_LOOKED_AT = 8


def normalize(text: str, *, max_chars: int = 2000) -> str:
    """Return the text in one canonical spelling, of at most ``max_chars`` characters.

    Unicode NFKC (full-width letters, ligatures, fractions and circled digits become plain), control
    and invisible characters out, trademark signs out, every run of white space one blank. Letters
    of any script, accents, case, punctuation, emoji and sizes stay. ``normalize(normalize(x))`` is
    ``normalize(x)``.

    Args:
        text: Any string; lone surrogates are dropped.
        max_chars: Longest result; what exceeds it is cut off.

    Raises:
        InvalidArgumentError: If ``max_chars`` is not positive.
    """
    if max_chars < 1:
        raise InvalidArgumentError(f"max_chars must be at least 1, got {max_chars}")
    text = _MARKS.sub(" ", text[: _LOOKED_AT * max_chars])
    visible = "".join(character for character in text if _is_kept(character))
    composed = unicodedata.normalize("NFKC", _BETWEEN_NUMBERS.sub(" ", visible))
    composed = composed.replace("\u2044", "/")  # the slash of a fraction, which nobody types
    return " ".join(composed.split())[:max_chars].rstrip()


def _is_kept(character: str) -> bool:
    if character.isspace() or character in _JOINERS:
        return True
    return unicodedata.category(character) not in {"Cc", "Cf", "Cs"}
