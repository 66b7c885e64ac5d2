"""Ranks, and classes predicted by nearest mean, against their definitions."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from text.report.metrics import search_result, target_result


def _unit(rows: int, *, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, 6)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_text_is_a_hit_with_fewer_than_ten_wrong_texts_before_it() -> None:
    result = search_result(np.array([0, 1, 9, 10]))
    assert result.n_queries == 4
    assert result.hit_rate.mean == 0.75
    assert result.mrr.mean == pytest.approx((1 + 1 / 2 + 1 / 10 + 1 / 11) / 4)
    assert result.hit_rate.low <= 0.75 <= result.hit_rate.high
    assert result == search_result(np.array([0, 1, 9, 10]))


def test_intervals_narrow_with_the_number_of_queries() -> None:
    few, many = (search_result(np.tile([0, 20], count)).hit_rate for count in (50, 5000))
    assert (few.high - few.low) == pytest.approx(2 * 1.96 * 0.05, rel=0.2)
    assert (many.high - many.low) == pytest.approx(2 * 1.96 * 0.005, rel=0.2)


def test_a_class_is_predicted_by_the_mean_of_its_other_texts() -> None:
    embeddings = _unit(60)
    labels = np.random.default_rng(1).integers(-1, 5, size=60)
    labels[labels == 4] = -1
    labels[0] = 4  # the only text of its class
    known, own, predicted = np.flatnonzero((labels >= 0) & (labels < 4)), [], []
    for row in known:
        cosines = {}
        for name in range(4):
            others = [n for n in known if labels[n] == name and n != row]
            mean = embeddings[others].mean(axis=0)
            cosines[name] = embeddings[row] @ mean / np.linalg.norm(mean)
        own.append(labels[row])
        predicted.append(max(cosines, key=lambda name: cosines[name]))
    result = target_result(embeddings, labels)
    assert result is not None
    assert (result.n_texts, result.n_classes, result.n_left_out) == (len(known), 4, 60 - len(known))
    assert result.accuracy.mean == pytest.approx(accuracy_score(own, predicted))
    assert result.macro_f1.mean == pytest.approx(f1_score(own, predicted, average="macro"))
    assert result.majority == np.bincount(labels[known]).max() / len(known)
    assert result.macro_f1.low < result.macro_f1.mean < result.macro_f1.high


def test_planted_classes_are_predicted() -> None:
    labels = np.arange(40) % 4
    result = target_result(np.eye(4, dtype=np.float32)[labels], labels)
    assert result is not None
    assert result.accuracy.mean == result.macro_f1.mean == 1.0


@pytest.mark.parametrize("labels", [[-1, -1, -1], [0, 1, 2], [-1, 0, 1]])
def test_without_two_texts_of_a_class_nothing_is_measured(labels: list[int]) -> None:
    assert target_result(_unit(3), np.array(labels)) is None
