"""Metrics with intervals: ranks of the texts found, and classes predicted by nearest mean."""

from collections.abc import Callable

import numpy as np

from text.report.results import Estimate, SearchResult, TargetResult
from text.retrieval import Floats, Ints

PLACES = 10


def search_result(ranks: Ints, *, seed: int = 0) -> SearchResult:
    """Return the hit rate and the mean reciprocal rank of the queries.

    Args:
        ranks: Number of wrong texts before the right one, for every query (Q,), Q at least 1.
        seed: Random seed for the intervals.
    """
    hits, reciprocal = (ranks < PLACES).astype(np.float64), 1.0 / (ranks + 1)
    return SearchResult(
        n_queries=len(ranks),
        hit_rate=_bootstrap(lambda rows: float(hits[rows].mean()), len(ranks), seed),
        mrr=_bootstrap(lambda rows: float(reciprocal[rows].mean()), len(ranks), seed),
    )


def target_result(embeddings: Floats, labels: Ints, *, seed: int = 0) -> TargetResult | None:
    """Return how often a text is nearest to the mean of the other texts of its class.

    The nearest-mean classifier (Mensink et al., 2013, https://hal.science/hal-00817211), without
    its learned metric. It trains nothing, so it measures the embeddings alone. Texts whose class
    is unknown or has no other text are left out. The result is None if no text is left.

    Args:
        embeddings: Embeddings of the texts, unit length (N, D).
        labels: Class index of every text, int64 (N,); -1 where unknown.
        seed: Random seed for the intervals.
    """
    counts = np.bincount(labels + 1)
    counts[0] = 0  # unknown
    rows = np.flatnonzero(counts[labels + 1] > 1)
    if len(rows) == 0:
        return None
    own = np.unique(labels[rows], return_inverse=True)[1]
    predicted = _nearest_means(embeddings[rows], own)
    right = (predicted == own).astype(np.float64)
    n_classes = int(own.max()) + 1
    return TargetResult(
        n_texts=len(rows),
        n_left_out=len(labels) - len(rows),
        n_classes=n_classes,
        accuracy=_bootstrap(lambda part: float(right[part].mean()), len(rows), seed),
        macro_f1=_bootstrap(
            lambda part: _macro_f1(own[part], predicted[part], n_classes), len(rows), seed
        ),
        majority=float(np.bincount(own).max() / len(rows)),
    )


def _nearest_means(embeddings: Floats, labels: Ints) -> Ints:
    """Return the class with the nearest mean (n,); each text is left out of its own mean."""
    sums = np.zeros((int(labels.max()) + 1, embeddings.shape[1]), dtype=np.float32)
    np.add.at(sums, labels, embeddings)
    scores = embeddings @ _unit(sums).T
    without = _unit(sums[labels] - embeddings)
    scores[np.arange(len(labels)), labels] = (embeddings * without).sum(axis=1)
    nearest: Ints = scores.argmax(axis=1)
    return nearest


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = vectors / np.maximum(lengths, 1e-12)
    return unit


def _macro_f1(labels: Ints, predicted: Ints, n_classes: int) -> float:
    """Return the mean F1 of the classes that have a label."""
    right = np.bincount(labels[labels == predicted], minlength=n_classes)
    support = np.bincount(labels, minlength=n_classes)
    f1 = 2 * right / np.maximum(support + np.bincount(predicted, minlength=n_classes), 1)
    return float(f1[support > 0].mean())


def _bootstrap(
    score: Callable[[Ints], float], count: int, seed: int, *, resamples: int = 1_000
) -> Estimate:
    """Return a score of all rows with its 95 % percentile bootstrap interval (Efron, 1979)."""
    generator = np.random.default_rng(seed)
    drawn = [score(generator.integers(count, size=count)) for _ in range(resamples)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(score(np.arange(count)), float(low), float(high))
