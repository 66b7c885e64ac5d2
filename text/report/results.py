"""Results of a text report, as plain values."""

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
    """How well texts are found by one kind of query.

    Args:
        n_queries: Number of queries, each for one text.
        hit_rate: Proportion of the texts with fewer than ten wrong texts before them.
        mrr: Mean reciprocal rank of the texts among the wrong ones.
    """

    n_queries: int
    hit_rate: Estimate
    mrr: Estimate


@dataclass(frozen=True)
class TargetResult:
    """How well the embeddings separate the classes of one target.

    Args:
        n_texts: Number of texts measured.
        n_left_out: Number of texts whose class is unknown or has no other text.
        n_classes: Number of classes of the texts measured.
        accuracy: Proportion of the texts whose predicted class is right.
        macro_f1: Mean F1 of the classes.
        majority: Proportion of the most frequent class, the accuracy of a constant answer.
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
        encoder: Class name of the network.
        dim: Embedding size D.
        n_texts: Number of texts in the catalogue.
        searches: Results by kind of query, such as ``two words``.
        scripts: Results of the queries of two words, by the script of most letters of the text.
        targets: Results by target, for targets that have a class with two texts.
        format: Version of the file format.
    """

    encoder: str
    dim: int
    n_texts: int
    searches: Mapping[str, SearchResult]
    scripts: Mapping[str, SearchResult]
    targets: Mapping[str, TargetResult]
    format: Literal[1] = 1
