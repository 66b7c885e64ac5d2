"""Labelled texts."""

import numpy as np
import pytest

from text.dataset import EpochShuffle, Samples, TextSet
from text.encoder import TextEncoder


def test_a_batch_holds_the_rows_that_were_asked_for(encoder: TextEncoder) -> None:
    samples = Samples(
        ["red vase", "teal mug", ""],
        {"a": np.array([0, 1, -1]), "b": np.array([-1, 0, 0])},
        {"a": ["x", "y"], "b": ["z"]},
    )
    batch = TextSet(samples, encoder).__getitems__([2, 0])
    assert batch.labels.tolist() == [[-1, 0], [0, -1]]
    assert [len(text.words) for text in batch.texts] == [0, 2]


def test_a_batch_holds_categories_where_there_are_any(encoder: TextEncoder) -> None:
    categories = [("Home", "Vase"), (), ("Kitchen",)]
    batch = TextSet(
        Samples(["red vase", "teal mug", ""], categories=categories), encoder
    ).__getitems__([0, 1])
    assert [len(category.words) for category in batch.categories] == [2, 0]
    assert TextSet(Samples(["red vase"]), encoder)[0].categories == []


def test_targets_are_not_needed(encoder: TextEncoder) -> None:
    assert TextSet(Samples(["red vase"]), encoder)[0].labels.shape == (1, 0)


def test_an_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        shuffle = EpochShuffle(50, seed)
        shuffle.set_epoch(epoch)
        return list(shuffle)

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)
    assert sorted(order(0, 3)) == list(range(50))


def test_an_epoch_may_be_shorter_than_the_texts_and_the_next_draws_others() -> None:
    shuffle = EpochShuffle(50, 0, 20)
    assert len(shuffle) == 20
    drawn = []
    for epoch in range(8):
        shuffle.set_epoch(epoch)
        drawn.append(list(shuffle))
    assert all(len(set(rows)) == 20 for rows in drawn)
    assert drawn[0] != drawn[1]
    assert len({row for rows in drawn for row in rows}) > 40
    assert list(EpochShuffle(50, 0, 60)) == list(EpochShuffle(50, 0))


@pytest.mark.parametrize(
    ("targets", "classes", "message"),
    [
        ({"a": np.array([0, 1])}, {}, r"same targets in the same order, got \['a'\] and \[\]"),
        ({"a": np.array([0, 2])}, {"a": ["x", "y"]}, r"targets\['a'\] must be between -1 and 1"),
        ({"a": np.array([-2, 0])}, {"a": ["x"]}, "between -1 and 0, got -2 to 0"),
        ({"a": np.array([0])}, {"a": ["x"]}, r"must be int64 \(2,\), got int64 \(1,\)"),
        ({"a": np.array([0.0, 1.0])}, {"a": ["x", "y"]}, r"must be int64 \(2,\), got float64"),
    ],
)
def test_labels_that_disagree_are_refused(
    targets: dict[str, np.ndarray], classes: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Samples(["vase", "mug"], targets, classes)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (np.array([[0, 2]]), "pairs must be rows between 0 and 1, got 0 to 2"),
        (np.array([[-1, 0]]), "between 0 and 1, got -1 to 0"),
        (np.array([0, 1]), r"pairs must be int64 \(P, 2\), got int64 \(2,\)"),
        (np.array([[0.0, 1.0]]), r"must be int64 \(P, 2\), got float64 \(1, 2\)"),
    ],
)
def test_pairs_of_other_rows_are_refused(pairs: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Samples(["vase", "mug"], pairs=pairs)


def test_categories_of_some_texts_alone_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one path per text \(2\), or be empty, got 1"):
        Samples(["vase", "mug"], categories=[("Home",)])


def test_one_string_is_refused() -> None:
    with pytest.raises(ValueError, match="texts must be a sequence of strings, got 'vase'"):
        Samples("vase")
