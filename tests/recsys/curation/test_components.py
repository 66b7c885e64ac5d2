import numpy as np
import pytest

from recsys.curation.components import first_connected, members, near_components


def flooded(near: np.ndarray) -> list[int]:
    """Return the first row of each row's component, by a walk from each row not yet reached."""
    first: list[int | None] = [None] * len(near)
    for start in range(len(near)):
        if first[start] is not None:
            continue
        group = [start]
        for row in group:  # grows as it is walked
            group += [other for other in np.flatnonzero(near[row]).tolist() if other not in group]
        for row in group:
            first[row] = start
    return [row for row in first if row is not None]


@pytest.mark.parametrize("rows_at_once", [1, 7, 40, 64])
@pytest.mark.parametrize("seed", range(8))
def test_near_vectors_are_connected_however_many_are_compared_at_once(
    seed: int, rows_at_once: int
) -> None:
    vectors = np.random.default_rng(seed).normal(size=(40, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    wanted = flooded(vectors @ vectors.T >= 0.93)
    assert 1 < len(set(wanted)) < 40
    assert near_components(vectors, 0.93, rows_at_once=rows_at_once).tolist() == wanted


def test_no_vectors_have_no_components() -> None:
    assert near_components(np.empty((0, 3), np.float32), 0.9).tolist() == []


def test_links_of_several_kinds_connect_together() -> None:
    links = [(np.array([0, 5]), np.array([2, 4])), (np.array([2]), np.array([5]))]
    assert first_connected(7, links).tolist() == [0, 1, 0, 3, 0, 0, 6]


def test_members_are_the_rows_of_components_of_two_or_more() -> None:
    groups = members(np.array([0, 1, 0, 3, 1, 0]))
    assert [group.tolist() for group in groups] == [[0, 2, 5], [1, 4]]
    assert members(np.arange(3)) == []
