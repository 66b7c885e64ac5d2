"""Metrics are compared with scikit-learn, with loops and with numbers worked out by hand."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from vision.arrays import Ints
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
def answers() -> tuple[Ints, Ints]:
    """Return labels and predictions of 9 classes: 2 occur only in predictions, 1 only in labels."""
    rng = np.random.default_rng(0)
    labels = rng.choice(7, 150, p=[0.4, 0.2, 0.15, 0.1, 0.08, 0.05, 0.02])
    predicted = np.where(rng.random(150) < 0.6, labels, rng.integers(0, 9, 150))
    predicted[predicted == 3] = 8
    return labels, predicted


def test_scores_equal_those_of_scikit_learn_over_the_classes_with_pictures(
    answers: tuple[Ints, Ints],
) -> None:
    labels, predicted = answers
    accuracy, macro_f1 = accuracy_and_macro_f1(count_confusion(labels, predicted, 9))
    present = np.unique(labels)
    assert accuracy.mean == pytest.approx((labels == predicted).mean())
    wanted = f1_score(labels, predicted, labels=present, average="macro", zero_division=0)
    assert macro_f1.mean == pytest.approx(wanted)


def test_intervals_agree_with_a_loop_that_draws_pictures(
    answers: tuple[Ints, Ints],
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


def test_intervals_depend_on_the_seed_only(
    answers: tuple[Ints, Ints],
) -> None:
    confusion = count_confusion(*answers, 9)
    assert accuracy_and_macro_f1(confusion, seed=1) == accuracy_and_macro_f1(confusion, seed=1)
    assert accuracy_and_macro_f1(confusion, seed=1) != accuracy_and_macro_f1(confusion, seed=2)


def test_the_order_of_the_pictures_does_not_matter(
    answers: tuple[Ints, Ints],
) -> None:
    labels, predicted = answers
    order = np.random.default_rng(2).permutation(len(labels))
    shuffled = count_confusion(labels[order], predicted[order], 9)
    assert accuracy_and_macro_f1(shuffled) == accuracy_and_macro_f1(count_confusion(*answers, 9))


def test_class_results_equal_those_of_scikit_learn_the_most_frequent_first(
    answers: tuple[Ints, Ints],
) -> None:
    labels, predicted = answers
    got = class_results(count_confusion(labels, predicted, 9), NAMES)
    order = [NAMES.index(result.name) for result in got]
    wanted = precision_recall_fscore_support(labels, predicted, labels=order, zero_division=0)
    for result, *scores, support in zip(got, *wanted, strict=True):
        assert [result.precision, result.recall, result.f1] == pytest.approx(scores)
        assert result.support == support
    supports = [result.support for result in got]
    assert supports == sorted(supports, reverse=True)
    assert set(order) == set(labels.tolist()), "classes without pictures have no recall"


def test_the_cells_are_the_confusion_matrix_without_its_zeros(
    answers: tuple[Ints, Ints],
) -> None:
    matrix = np.zeros((9, 9), dtype=np.int64)
    for cell in count_confusion(*answers, 9).cells:
        assert cell.count > 0
        matrix[cell.label, cell.predicted] = cell.count
    np.testing.assert_array_equal(matrix, confusion_matrix(*answers, labels=range(9)))


@pytest.fixture
def paths() -> Confusion:
    """Return confusions of Gala: 3 times as Golden, 2 times back, 4 as the pear, 1 as milk."""
    labels = np.array([0] * 9 + [1] * 4 + [3] * 2)
    predicted = np.array([1] * 3 + [2] * 4 + [3] + [0] + [0] * 2 + [1] * 2 + [3] * 2)
    return count_confusion(labels, predicted, 4)


def test_confused_pairs_are_siblings_and_count_both_directions(paths: Confusion) -> None:
    (pair,) = confused_pairs(paths, PATHS)
    assert (pair.first, pair.second, pair.count) == (*PATHS[:2], 5)
    assert pair.share == pytest.approx(5 / 13)
    assert sibling_mistakes(paths, PATHS).n_pictures == 5


def test_names_without_a_parent_are_all_siblings(paths: Confusion) -> None:
    pairs = confused_pairs(paths, ["a", "b", "c", "d"])
    assert [(p.first, p.second, p.count) for p in pairs] == [
        ("a", "b", 5),
        ("a", "c", 4),
        ("a", "d", 1),
    ]
    assert len(confused_pairs(paths, ["a", "b", "c", "d"], limit=2)) == 2


def test_correct_predictions_give_no_confused_pairs() -> None:
    confusion = count_confusion(np.array([2, 2]), np.array([2, 2]), 4)
    assert confused_pairs(confusion, PATHS) == ()
    assert sibling_mistakes(confusion, PATHS).n_pictures == 0


def test_intervals_of_one_picture_have_no_width() -> None:
    accuracy, macro_f1 = accuracy_and_macro_f1(count_confusion(np.array([1]), np.array([1]), 3))
    assert (accuracy.low, accuracy.mean, accuracy.high) == (1.0, 1.0, 1.0)
    assert (macro_f1.low, macro_f1.mean, macro_f1.high) == (1.0, 1.0, 1.0)
