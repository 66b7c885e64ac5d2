"""The levels of a category path agree, and a prediction is one path."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from vision.arrays import Doubles
from vision.dataset import UNKNOWN
from vision.hierarchy import CategoryPath, choose_classes, find_category_paths, reconcile_levels

FRUIT = {
    "category_1": ["Fruit", "Milk", "Nuts"],
    "colour": ["red", "green"],
    "category_2": ["Fruit > Apple", "Fruit > Pear", "Nuts > Walnut", "Fruit > Kiwi"],
    "category_3": ["Fruit > Apple > Gala", "Fruit > Pear > Anjou", "Fruit > Apple > Fuji"],
}
LEVELS = ("category_1", "category_2", "category_3")

Probabilities = dict[str, Doubles]


def draw(classes: Mapping[str, Sequence[str]], seed: int, count: int = 5) -> Probabilities:
    rng = np.random.default_rng(seed)
    return {target: rng.dirichlet(np.ones(len(names)), count) for target, names in classes.items()}


def test_levels_follow_from_the_names_in_any_order() -> None:
    (path,) = find_category_paths(FRUIT)
    assert path.targets == LEVELS
    assert [parents.tolist() for parents in path.parents] == [[0, 0, 2, 0], [0, 1, 0]]
    (backwards,) = find_category_paths(dict(reversed(FRUIT.items())))
    assert backwards.targets == LEVELS


def test_similar_names_do_not_make_a_path() -> None:
    assert (
        find_category_paths({"a": ["Fruit", "Nut"], "b": ["Fruits > Apple", "Nut > Walnut"]}) == ()
    )
    assert find_category_paths({"a": ["red", "green"], "b": ["red", "green"], "c": []}) == ()
    assert find_category_paths({}) == ()


def test_a_level_may_be_skipped() -> None:
    (path,) = find_category_paths({"top": ["A", "B"], "leaf": ["B > x > m", "A > x > n"]})
    assert path.parents[0].tolist() == [1, 0]


def test_two_hierarchies_give_two_paths() -> None:
    shop = {"food": ["A"], "wear": ["W"], "cut": ["W > long", "W > short"], "sort": ["A > a"]}
    assert {path.targets for path in find_category_paths(shop)} == {
        ("food", "sort"),
        ("wear", "cut"),
    }


def divergence(p: Doubles, q: Doubles) -> float:
    return float(np.sum(p * np.log(p / q)))


@pytest.mark.parametrize("seed", range(3))
def test_the_result_is_the_distribution_closest_to_all_heads(seed: int) -> None:
    classes = {
        "1": ["a", "b"],
        "2": ["a > c", "a > d", "b > e"],
        "3": ["a > c > f", "a > c > g", "a > d > h", "b > e > i", "b > e > j"],
    }
    paths = find_category_paths(classes)
    heads = draw(classes, seed, count=1)
    second, first = np.eye(3)[[0, 0, 1, 2, 2]], np.eye(2)[[0, 0, 0, 1, 1]]

    def cost(logits: Doubles) -> float:
        leaves = np.exp(logits) / np.exp(logits).sum()
        levels = {"1": leaves @ first, "2": leaves @ second, "3": leaves}
        return sum(divergence(levels[name], heads[name][0]) for name in levels)

    best = minimize(cost, np.zeros(5), tol=1e-12).x
    wanted = np.exp(best) / np.exp(best).sum()
    got = reconcile_levels(heads, paths)
    np.testing.assert_allclose(got["3"][0], wanted, atol=1e-5)
    np.testing.assert_allclose(got["1"][0], wanted @ first, atol=1e-5)


@given(seed=st.integers(0, 10_000))
def test_a_class_has_the_sum_of_its_subclasses(seed: int) -> None:
    (path,) = find_category_paths(FRUIT)
    heads = draw(FRUIT, seed)
    got = reconcile_levels(heads, [path])
    np.testing.assert_allclose(got["category_1"].sum(axis=1), 1.0)
    for (coarse, fine), parents in zip(pairwise(LEVELS), path.parents, strict=True):
        for parent in range(len(FRUIT[coarse])):
            parts = got[fine][:, parents == parent]
            if parts.shape[1]:
                np.testing.assert_allclose(parts.sum(axis=1), got[coarse][:, parent])
    # The path of Milk ends early, so no finer head changes its probability.
    np.testing.assert_allclose(got["category_1"][:, 1], heads["category_1"][:, 1])
    assert got["colour"] is heads["colour"]


@given(seed=st.integers(0, 10_000))
def test_heads_that_agree_are_not_changed(seed: int) -> None:
    paths = find_category_paths(FRUIT)
    once = reconcile_levels(draw(FRUIT, seed), paths)
    again = reconcile_levels(once, paths)
    for name, rows in once.items():
        np.testing.assert_allclose(again[name], rows, rtol=1e-9)


def ends(path: CategoryPath) -> list[tuple[int, int, int]]:
    """Return every whole path of FRUIT by trying all combinations."""
    first, second = path.parents
    whole = [(first[second[leaf]], second[leaf], leaf) for leaf in range(len(second))]
    whole += [(first[c], c, UNKNOWN) for c in range(len(first)) if c not in second]
    return whole + [(c, UNKNOWN, UNKNOWN) for c in range(3) if c not in first]


@given(seed=st.integers(0, 10_000), agreed=st.booleans())
def test_a_prediction_is_the_path_with_most_expected_correct_levels(
    seed: int, agreed: bool
) -> None:
    (path,) = find_category_paths(FRUIT)
    heads = draw(FRUIT, seed)
    probabilities = reconcile_levels(heads, [path]) if agreed else heads
    predicted = choose_classes(probabilities, [path])
    for row in range(5):
        expected = {}
        for end in ends(path):
            total, own = 0.0, 0.0
            for name, column in zip(LEVELS, end, strict=True):
                own = own if column == UNKNOWN else probabilities[name][row, column]
                total += own
            expected[end] = total
        first, second, third = (int(predicted[name][row]) for name in LEVELS)
        got = expected[first, second, third]
        assert math.isclose(got, max(expected.values()))
        assert predicted["colour"][row] == probabilities["colour"][row].argmax()


def test_a_class_with_few_subclasses_is_not_preferred() -> None:
    classes = {"1": ["many", "one"], "2": [f"many > {n}" for n in range(10)] + ["one > x"]}
    probabilities = {"1": np.array([[0.7, 0.3]]), "2": np.array([[0.07] * 10 + [0.3]])}
    assert choose_classes(probabilities, find_category_paths(classes))["1"].tolist() == [0]


def test_a_probable_early_end_beats_a_longer_path() -> None:
    classes = {"1": ["Milk", "Fruit"], "2": ["Fruit > Apple", "Fruit > Pear"]}
    probabilities = {"1": np.array([[0.6, 0.4]]), "2": np.array([[0.35, 0.05]])}
    predicted = choose_classes(probabilities, find_category_paths(classes))
    assert {name: rows.tolist() for name, rows in predicted.items()} == {"1": [0], "2": [UNKNOWN]}


def test_probabilities_of_zero_still_agree() -> None:
    classes = {"1": ["a", "b"], "2": ["a > c", "a > d", "b > e"]}
    heads = {
        "1": np.array([[1, 0], [0, 1]], dtype=np.float32),
        "2": np.array([[0, 0, 1], [0, 1, 0]], dtype=np.float32),
    }
    got = reconcile_levels(heads, find_category_paths(classes))
    assert {rows.dtype for rows in got.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(got["2"].sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(got["2"][:, 2], got["1"][:, 1], rtol=1e-6)


def test_no_pictures_give_no_rows() -> None:
    paths = find_category_paths(FRUIT)
    nothing = {target: np.zeros((0, len(names)), np.float32) for target, names in FRUIT.items()}
    assert choose_classes(reconcile_levels(nothing, paths), paths)["category_3"].shape == (0,)


def test_probabilities_of_other_targets_or_classes_are_refused() -> None:
    paths = find_category_paths(FRUIT)
    heads = draw(FRUIT, 0)
    for function in (reconcile_levels, choose_classes):
        with pytest.raises(
            ValueError, match=r"all targets of the path .*\['category_2'\] are missing"
        ):
            function({name: heads[name] for name in heads if name != "category_2"}, paths)
        with pytest.raises(ValueError, match=r"'category_3'\] must have shape \(n, 3\).*\(5, 4\)"):
            function({**heads, "category_3": heads["category_2"]}, paths)
