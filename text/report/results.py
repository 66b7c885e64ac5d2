"""Everything that a text report says, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class SearchResult:
    """How texts are found by one kind of query.

    Args:
        n_queries: Texts that were asked for.
        hit_rate: Share of them before which fewer than ten wrong texts came.
        mrr: Mean of 1 over the place that a text has among the wrong ones.
    """

    n_queries: int
    hit_rate: Estimate
    mrr: Estimate


@dataclass(frozen=True)
class TargetResult:
    """How well the embeddings tell the classes of one target.

    Args:
        n_texts: Texts measured.
        n_left_out: Texts whose class is unknown or has no other text.
        n_classes: Classes of the texts measured.
        accuracy: Share of the texts given their own class.
        macro_f1: Mean F1 of the classes.
        majority: Share of the most frequent class: what a constant answer would reach.
    """

    n_texts: int
    n_left_out: int
    n_classes: int
    accuracy: Estimate
    macro_f1: Estimate
    majority: float


@dataclass(frozen=True)
class TextReport:
    """One encoder's results on one catalogue.

    Args:
        encoder: Its network.
        dim: Size D of its embeddings.
        n_texts: Texts of the catalogue.
        searches: By what texts were found by, such as ``two words``.
        scripts: Finding texts by two words, by the script that most of their letters are of.
        targets: Results of the targets that have a class with two texts.
        format: Of the file.
    """

    encoder: str
    dim: int
    n_texts: int
    searches: Mapping[str, SearchResult]
    scripts: Mapping[str, SearchResult]
    targets: Mapping[str, TargetResult]
    format: Literal[1] = 1
