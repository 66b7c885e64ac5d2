import numpy as np
import pytest
import torch

from recsys.index import nearest_rows


def test_the_nearest_rows_are_those_of_a_full_sort() -> None:
    generator = np.random.default_rng(0)
    embeddings = torch.tensor(generator.normal(size=(200, 8)), dtype=torch.float32)
    query = torch.tensor(generator.normal(size=8), dtype=torch.float32)
    mask = generator.random(200) < 0.5
    scored = [(float(embeddings[row] @ query), row) for row in range(200) if mask[row]]
    wanted = [row for _, row in sorted(scored, key=lambda pair: (-pair[0], pair[1]))][:7]
    found = nearest_rows(query, embeddings, mask, 7)
    assert found.rows.tolist() == wanted
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_fewer_allowed_rows_than_asked_give_fewer_results() -> None:
    mask = np.array([False, True, False])
    assert nearest_rows(torch.ones(2), torch.ones(3, 2), mask, 5).rows.tolist() == [1]


def test_equal_scores_come_in_row_order() -> None:
    mask = np.ones(4, dtype=np.bool_)
    assert nearest_rows(torch.ones(2), torch.ones(4, 2), mask, 3).rows.tolist() == [0, 1, 2]


def test_a_query_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must have shapes"):
        nearest_rows(torch.ones(3), torch.ones(4, 2), np.ones(4, dtype=np.bool_), 1)
