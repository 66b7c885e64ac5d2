"""Compare a new encoder with published weights, on texts that neither has learned from."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from text.config import TextConfig
from text.dataset import Samples
from text.device import Device
from text.encoder import TextEncoder
from text.finetuning import finetune
from text.networks.build import build_encoder
from text.networks.start import NEW, PUBLISHED, Start
from text.retrieval import find_by_partner, find_by_words

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

HELD_OUT = 5  # one text in so many is not learned from
MAX_HELD_OUT, MAX_OTHERS = 1_000, 4_000  # texts that are measured, and beside which they are
MIN_QUERIES = 10  # of one kind; fewer say nothing
FOUND = 10  # places among which a text is found


def choose_start(
    samples: Samples,
    config: TextConfig,
    later_pairs: Ints,
    *,
    workdir: Path,
    seed: int,
    device: Device = "auto",
) -> Start:
    """Return which of two encoders recognises more of the texts that neither has learned from.

    A new encoder is trained as configured on four fifths of the texts; the published one is taken
    as it is. Three kinds of queries look for the others: two of their words, their partners in
    ``later_pairs``, and the mean of the texts of their category. The published weights are chosen
    if the mean of the kinds is higher by more than its standard error.

    Args:
        samples: Texts to learn from.
        config: How a new encoder is built and trained.
        later_pairs: Rows of texts that went together after those of ``samples``, int64 (P, 2).
        workdir: Folder for the checkpoints of the comparison.
        seed: Random seed of the comparison.
        device: Device to compute on.

    Raises:
        TextError: If the new encoder cannot be trained, or the weights cannot be loaded.
    """
    held_out = hold_out(samples.texts, seed)
    others = np.flatnonzero(~held_out).astype(np.int64)
    built = finetune(
        take(samples, others),
        config.model_copy(update={"checkpoint": None}),
        workdir=workdir,
        seed=seed,
        device=device,
    ).encoder
    published = build_encoder(config.model_copy(update={"checkpoint": PUBLISHED}), [], seed=seed)
    shown = np.sort(np.random.default_rng(seed).permutation(others)[:MAX_OTHERS])
    rows = np.concatenate([np.flatnonzero(held_out), shown])
    measured = take(replace(samples, pairs=later_pairs), rows)
    n_new = int(held_out.sum())
    outcomes = {
        name: _recognised(encoder, measured, n_new, seed)
        for name, encoder in ((NEW, built), (PUBLISHED, published))
    }
    figures = {
        name: {kind: float(found.mean()) for kind, found in of.items()}
        for name, of in outcomes.items()
    }
    gains = [outcomes[PUBLISHED][kind] - found for kind, found in outcomes[NEW].items()]
    return Start(PUBLISHED if clearly_positive(gains) else None, figures)


def hold_out(texts: Sequence[str], seed: int) -> NDArray[np.bool_]:
    """Return which texts are not learned from (n,): a fifth of the different ones at most."""
    code_of = {text: code for code, text in enumerate(dict.fromkeys(texts))}
    codes = np.array([code_of[text] for text in texts], dtype=np.int64)
    order = np.random.default_rng(seed).permutation(len(code_of))
    return np.isin(codes, order[: min(MAX_HELD_OUT, len(order) // HELD_OUT)])


def take(samples: Samples, rows: Ints) -> Samples:
    """Return some of the texts, in this order, with the pairs among them."""
    place = np.full(len(samples), -1)
    place[rows] = np.arange(len(rows))
    pairs = place[samples.pairs]
    return Samples(
        texts=[samples.texts[row] for row in rows],
        targets={name: labels[rows] for name, labels in samples.targets.items()},
        classes=samples.classes,
        categories=[samples.categories[row] for row in rows] if samples.categories else (),
        pairs=pairs[(pairs >= 0).all(axis=1)],
    )


def clearly_positive(gains: list[Floats]) -> bool:
    """Return whether the mean of several means is above 0 by more than its standard error.

    Args:
        gains: Differences of each kind, each (Q,); without any the answer is no.
    """
    if not gains:
        return False
    mean = sum(float(one.mean()) for one in gains) / len(gains)
    variance = sum(float(one.var()) / len(one) for one in gains) / len(gains) ** 2
    return bool(mean > np.sqrt(variance))


def _recognised(encoder: TextEncoder, samples: Samples, n_new: int, seed: int) -> dict[str, Floats]:
    """Return for each kind of query whether it found its text (Q,), for the first ``n_new``."""
    embeddings = encoder.embed(list(samples.texts))
    words = find_by_words(
        encoder,
        samples.texts,
        embeddings,
        n_words=2,
        max_queries=MAX_HELD_OUT,
        seed=seed,
        n_asked=n_new,
    )
    both = np.concatenate([samples.pairs, samples.pairs[:, ::-1]])
    asked = both[both[:, 0] < n_new]
    partners = find_by_partner(embeddings, asked, max_queries=MAX_HELD_OUT, seed=seed)
    found = {
        "words": (words.ranks[np.argsort(words.rows)] < FOUND).astype(np.float64),
        "partners": (partners.ranks < FOUND).astype(np.float64),
        "category": _in_category(embeddings.astype(np.float64), samples.categories, n_new),
    }
    return {kind: hits for kind, hits in found.items() if len(hits) >= MIN_QUERIES}


def _in_category(embeddings: Floats, categories: Sequence[Sequence[str]], n_new: int) -> Floats:
    """Return whether new texts are nearest to the mean of their category's other texts (Q,)."""
    paths = [" > ".join(path) for path in categories]
    if not any(paths):
        return np.empty(0)
    names, codes = np.unique(paths, return_inverse=True)
    means = np.zeros((len(names), embeddings.shape[1]))
    np.add.at(means, codes[n_new:], embeddings[n_new:])
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    known = (lengths[:, 0] > 0) & (names != "")
    cosines = embeddings[:n_new] @ (means / np.maximum(lengths, 1e-12)).T
    cosines[:, ~known] = -np.inf
    asked = known[codes[:n_new]]
    hits: Floats = (cosines.argmax(axis=1) == codes[:n_new])[asked].astype(np.float64)
    return hits
