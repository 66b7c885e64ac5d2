"""Accuracy, macro-F1 and confusions against scikit-learn, loops and numbers worked out by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from vision.report.metrics import (
    Confusion,
    accuracy_and_macro_f1,
    class_results,
    confused_pairs,
    count_confusion,
    sibling_mistakes,
)

NAMES = [f"class {row}" for row in range(9)]
PATHS = ["Fruit > Apple > Gala", "Fruit > Apple > Golden", "Fruit > Pear > Gala", "Milk > Oat > A"]


@pytest.fixture
def answers() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels and predictions of 9 classes; two are only ever predicted, one never is."""
    rng = np.random.default_rng(0)
    labels = rng.choice(7, 150, p=[0.4, 0.2, 0.15, 0.1, 0.08, 0.05, 0.02])
    predicted = np.where(rng.random(150) < 0.6, labels, rng.integers(0, 9, 150))
    predicted[predicted == 3] = 8
    return labels, predicted


def test_scores_are_those_of_scikit_learn_over_the_classes_that_are_there(
    answers: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> None:
    labels, predicted = answers
    accuracy, macro_f1 = accuracy_and_macro_f1(count_confusion(labels, predicted, 9))
    present = np.unique(labels)
    assert accuracy.mean == pytest.approx((labels == predicted).mean())
    wanted = f1_score(labels, predicted, labels=present, average="macro", zero_division=0)
    assert macro_f1.mean == pytest.approx(wanted)


def test_intervals_are_those_of_a_loop_that_draws_pictures(
    answers: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> None:
    labels, predicted = answers
    rng = np.random.default_rng(1)
    draws = []
    for _ in range(1_500):
        rows = rng.integers(0, len(labels), len(labels))
        own, given = labels[rows], predicted[rows]
        scores = []
        for c in set(own.tolist()):
            both = ((own == c) & (given == c)).sum()
            scores.append(2 * both / ((own == c).sum() + (given == c).sum()))
        draws.append(((own == given).mean(), np.mean(scores)))
    wanted = np.quantile(draws, [0.025, 0.975], axis=0).T
    confusion = count_confusion(labels, predicted, 9)
    got = accuracy_and_macro_f1(confusion, resamples=4_000)
    np.testing.assert_allclose([[e.low, e.high] for e in got], wanted, atol=0.012)


def test_the_seed_alone_decides_the_intervals(
    answers: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> None:
    confusion = count_confusion(*answers, 9)
    assert accuracy_and_macro_f1(confusion, seed=1) == accuracy_and_macro_f1(confusion, seed=1)
    assert accuracy_and_macro_f1(confusion, seed=1) != accuracy_and_macro_f1(confusion, seed=2)


def test_the_order_of_the_pictures_does_not_matter(
    answers: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> None:
    labels, predicted = answers
    order = np.random.default_rng(2).permutation(len(labels))
    shuffled = count_confusion(labels[order], predicted[order], 9)
    assert accuracy_and_macro_f1(shuffled) == accuracy_and_macro_f1(count_confusion(*answers, 9))


def test_classes_are_those_of_scikit_learn_the_most_frequent_first(
    answers: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> None:
    labels, predicted = answers
    got = class_results(count_confusion(labels, predicted, 9), NAMES)
    order = [NAMES.index(one.name) for one in got]
    wanted = precision_recall_fscore_support(labels, predicted, labels=order, zero_division=0)
    for one, precision, recall, f1, support in zip(got, *wanted, strict=True):
        assert (one.precision, one.recall, one.f1) == pytest.approx((precision, recall, f1))
        assert one.support == support
    assert [one.support for one in got] == sorted((one.support for one in got), reverse=True)
    assert set(order) == set(labels.tolist()), "classes without pictures have no recall"


def test_the_cells_are_the_confusion_matrix_without_its_zeros(
    answers: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> None:
    matrix = np.zeros((9, 9), dtype=np.int64)
    for cell in count_confusion(*answers, 9).cells:
        assert cell.count > 0
        matrix[cell.label, cell.predicted] = cell.count
    np.testing.assert_array_equal(matrix, confusion_matrix(*answers, labels=range(9)))


@pytest.fixture
def paths() -> Confusion:
    """Gala taken for Golden 3 times and back 2, for the pear 4 times, for milk once; milk right."""
    labels = np.array([0] * 9 + [1] * 4 + [3] * 2)
    predicted = np.array([1] * 3 + [2] * 4 + [3] + [0] + [0] * 2 + [1] * 2 + [3] * 2)
    return count_confusion(labels, predicted, 4)


def test_only_siblings_are_confused_and_both_directions_count(paths: Confusion) -> None:
    (pair,) = confused_pairs(paths, PATHS)
    assert (pair.first, pair.second, pair.count) == (*PATHS[:2], 5)
    assert pair.share == pytest.approx(5 / 13)
    assert sibling_mistakes(paths, PATHS).n_pictures == 5


def test_names_that_are_no_paths_are_all_siblings(paths: Confusion) -> None:
    pairs = confused_pairs(paths, ["a", "b", "c", "d"])
    assert [(p.first, p.second, p.count) for p in pairs] == [
        ("a", "b", 5),
        ("a", "c", 4),
        ("a", "d", 1),
    ]
    assert len(confused_pairs(paths, ["a", "b", "c", "d"], limit=2)) == 2


def test_nothing_is_confused_where_all_is_right() -> None:
    confusion = count_confusion(np.array([2, 2]), np.array([2, 2]), 4)
    assert confused_pairs(confusion, PATHS) == ()
    assert sibling_mistakes(confusion, PATHS).n_pictures == 0


def test_one_picture_has_intervals_without_width() -> None:
    accuracy, macro_f1 = accuracy_and_macro_f1(count_confusion(np.array([1]), np.array([1]), 3))
    assert (accuracy.low, accuracy.mean, accuracy.high) == (1.0, 1.0, 1.0)
    assert (macro_f1.low, macro_f1.mean, macro_f1.high) == (1.0, 1.0, 1.0)
