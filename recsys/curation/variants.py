"""Find the items that are one product in several colours or sizes."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from recsys.curation.components import members, near_components
from recsys.data.arrays import Floats
from recsys.errors import InvalidArgumentError
from text.tokens.normalize import normalize
from vision.palette import PALETTE

# Colour words of titles, beside the palette's. The shop's attributes add its own words.
COLOUR_WORDS = (
    *PALETTE,
    *("amber", "aqua", "bronze", "charcoal", "copper", "coral", "cream", "gray", "indigo", "ivory"),
    *("khaki", "lavender", "lilac", "magenta", "maroon", "mauve", "mint", "multicolour", "mustard"),
    *("navy blue", "off white", "peach", "rust", "silver", "tan", "taupe", "teal", "violet"),
)
COLOUR_KEYS, SIZE_KEYS = ("colour", "color"), ("size",)  # parts of the names of attributes
_SHADES = "(?:(?:light|dark|pale|bright|deep|mid)[ -])?"
_UNITS = "ml|cl|l|mg|g|kg|oz|lb|mm|cm|m|in|inch|gb|tb|pcs|pack"
_SIZES = rf"(?:size|eu|uk|us) ?\d+(?:[.,]\d+)?|\d?x{{0,4}}[sl]|m|\d+(?:[.,]\d+)? ?(?:{_UNITS})"


class _Words(NamedTuple):
    """A title without its words for colour and size, and those words."""

    rest: str
    colour: str | None
    size: str | None


def find_variants(
    items: pl.DataFrame, embeddings: Floats, *, min_similarity: float = 0.5
) -> pl.DataFrame:
    """Return ``group``, ``item_id``, ``colour`` and ``size`` of every item that has variants.

    Variants have the same category and brand, and the same title apart from words for colour and
    size. They differ in colour or size, and each looks like another one of its group. Colour and
    size come from the title, or else from an attribute whose name contains "colour" or "size".
    Items that differ in neither may be duplicates, and are not variants.

    Args:
        items: Table of ``ItemSchema`` (N rows).
        embeddings: Item embeddings, unit length (N, D).
        min_similarity: Lowest cosine to another item of the group; -1 ignores the embeddings.

    Raises:
        InvalidArgumentError: If the numbers of items and embeddings differ.
    """
    if len(embeddings) != len(items):
        raise InvalidArgumentError(
            f"embeddings must have {len(items)} rows, as items, got {len(embeddings)}"
        )
    words = _read_titles(items)
    groups = [
        group
        for rows in _same_rest(items, words)
        for group in _linked(rows, embeddings, min_similarity)
        if len({words[row][1:] for row in group}) > 1
    ]
    rows = [row for group in groups for row in group]
    return pl.DataFrame(
        {
            "group": np.repeat(np.arange(len(groups)), [len(group) for group in groups]),
            "item_id": items["item_id"].gather(rows),
            "colour": pl.Series([words[row].colour for row in rows], dtype=pl.String),
            "size": pl.Series([words[row].size for row in rows], dtype=pl.String),
        }
    )


def _read_titles(items: pl.DataFrame) -> list[_Words]:
    attributes = [
        {pair["key"].casefold(): pair["value"].casefold() for pair in pairs}
        for pairs in items["attributes"]
    ]
    own = {one for known in attributes if (one := _value(known, COLOUR_KEYS)) is not None}
    one_of = "|".join(map(re.escape, sorted({*COLOUR_WORDS, *own}, key=len, reverse=True)))
    colour = f"{_SHADES}(?:{one_of})"
    colours = _whole_words(f"{colour}(?:(?: | ?[&/+,-] ?| and ){colour})*")
    sizes = _whole_words(_SIZES)
    words = []
    for title, known in zip(items["title"], attributes, strict=True):
        text = normalize(title or "").casefold()
        without = sizes.sub(" ", colours.sub(" ", text))
        words.append(
            _Words(
                rest=" ".join(re.findall(r"\w+", without)),
                colour=" ".join(colours.findall(text)) or _value(known, COLOUR_KEYS),
                size=" ".join(sizes.findall(text)) or _value(known, SIZE_KEYS),
            )
        )
    return words


def _whole_words(pattern: str) -> re.Pattern[str]:
    # Not the s of "men's" or "U.S.", nor the l of "l-shaped".
    return re.compile(rf"(?<![\w.'’`´-])(?:{pattern})(?![\w.'’`´-])")


def _value(attributes: Mapping[str, str], parts: Iterable[str]) -> str | None:
    """Return the value of the first attribute whose name contains one of the parts."""
    return next((v for key, v in attributes.items() if any(part in key for part in parts)), None)


def _same_rest(items: pl.DataFrame, words: Sequence[_Words]) -> Iterable[list[int]]:
    """Return groups of rows with the same category, brand and title without colour and size."""
    brands = [
        next((pair["value"] for pair in pairs if pair["key"] == "brand"), None)
        for pairs in items["attributes"]
    ]
    rows: defaultdict[tuple[object, ...], list[int]] = defaultdict(list)
    for row, (path, brand) in enumerate(zip(items["category"], brands, strict=True)):
        if words[row].rest:
            rows[(*path, brand, words[row].rest)].append(row)
    return rows.values()


def _linked(rows: list[int], embeddings: Floats, min_similarity: float) -> Iterator[list[int]]:
    """Yield the connected components of the rows that are similar, of two rows or more."""
    if len(rows) < 2:
        return
    first = near_components(np.asarray(embeddings[rows]), min_similarity, rows_at_once=64)
    for group in members(first):
        yield [rows[position] for position in group]
