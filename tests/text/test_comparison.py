"""What an encoder starts from where the configuration leaves it open."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from text.comparison import MIN_QUERIES, choose_start, clearly_positive, hold_out, take
from text.config import AUTO, TextConfig
from text.dataset import Samples
from text.errors import InvalidArgumentError
from text.finetuning import check_start
from text.networks.build import build_encoder
from text.networks.start import NEW, PUBLISHED, Start, can_choose

Planted = Callable[..., Samples]
NO_PAIRS = np.empty((0, 2), dtype=np.int64)
# Words that a published encoder knows, and a catalogue of which each is met once is too short to
# teach.
KINDS = {
    "Furniture": "sofa armchair bookshelf wardrobe desk nightstand sideboard stool cabinet bench",
    "Fruit": "apple banana cherry mango peach pear plum grape kiwi apricot",
    "Animals": "horse giraffe elephant tiger rabbit donkey leopard squirrel hamster sheep",
    "Clothes": "shirt trousers jacket sweater skirt blouse cardigan coat dress jeans",
    "Tools": "hammer screwdriver pliers wrench chisel saw drill spanner mallet crowbar",
}


def test_a_published_encoder_is_taken_where_a_catalogue_is_too_small_to_learn_from(
    tmp_path: Path,
) -> None:
    if not can_choose():
        pytest.skip("the weights are not installed")
    titles = {title: kind for kind, names in KINDS.items() for title in names.split()}
    samples = Samples([*titles], categories=[(kind,) for kind in titles.values()])
    config = TextConfig(hidden=32, heads=2, epochs=2, vocab_size=600)
    start = choose_start(samples, config, NO_PAIRS, workdir=tmp_path, seed=0)
    assert start.checkpoint == PUBLISHED
    assert set(start.figures[NEW]) == set(start.figures[PUBLISHED]) == {"words", "category"}
    assert start.figures[PUBLISHED]["category"] > start.figures[NEW]["category"] + 0.2
    assert start.sentence().startswith(f"texts are read by {PUBLISHED}, not by {NEW}, by what")
    assert f"category {start.figures[PUBLISHED]['category']:.3f} (" in start.sentence()


def test_with_nothing_to_compare_the_encoder_is_new() -> None:
    assert Start(None, {NEW: {}, PUBLISHED: {}}).sentence().endswith("too few to compare")
    assert not clearly_positive([])


def test_a_gain_counts_from_one_standard_error_on() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.normal(0.3, 1.0, 400), generator.normal(-0.1, 1.0, 100)
    mean = (first.mean() + second.mean()) / 2
    error = np.sqrt(first.var() / 400 + second.var() / 100) / 2
    assert clearly_positive([first, second]) == (mean > error)
    shift = 2 * (error - mean)
    assert clearly_positive([first + shift + 1e-6, second])
    assert not clearly_positive([first + shift - 1e-6, second])


def test_equal_texts_are_held_out_together_and_no_more_than_a_fifth(planted: Planted) -> None:
    texts = [*planted(300).texts] * 2
    out = hold_out(texts, seed=1)
    assert out[:300].tolist() == out[300:].tolist()
    held = {text for text, one in zip(texts, out, strict=True) if one}
    assert len(held) == len(set(texts)) // 5
    assert held.isdisjoint(text for text, one in zip(texts, out, strict=True) if not one)
    assert not hold_out(texts[:4], seed=1).any()


def test_taken_texts_keep_their_labels_and_the_pairs_among_them(planted: Planted) -> None:
    samples = planted(20)
    pairs = np.array([[3, 7], [7, 9], [3, 3]])
    paths = [(f"kind {row}",) for row in range(20)]
    samples = Samples(samples.texts, samples.targets, samples.classes, paths, pairs)
    part = take(samples, np.array([9, 3, 7]))
    assert list(part.texts) == [samples.texts[row] for row in (9, 3, 7)]
    assert list(part.categories) == [paths[row] for row in (9, 3, 7)]
    assert part.pairs.tolist() == [[1, 2], [2, 0], [1, 1]]
    assert part.targets["brand"].tolist() == samples.targets["brand"][[9, 3, 7]].tolist()


def test_what_is_not_decided_yet_is_not_built() -> None:
    check_start(TextConfig(checkpoint=AUTO))
    with pytest.raises(InvalidArgumentError, match='checkpoint = "auto" must be decided'):
        build_encoder(TextConfig(checkpoint=AUTO), ["mug"], seed=0)
    assert MIN_QUERIES > 0
