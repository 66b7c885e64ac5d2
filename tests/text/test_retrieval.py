"""The measures of search, against their definitions as loops."""

from collections.abc import Callable

import numpy as np
import pytest

from text.dataset import Samples
from text.encoder import TextEncoder
from text.retrieval import (
    find_by_category,
    find_by_partner,
    find_by_words,
    word_query_hit_rate,
)

TEXTS = ["red vase", "teal mug", "ivory clock", "red mug", "teal vase", ""]


@pytest.fixture
def embeddings(encoder: TextEncoder) -> np.ndarray:
    return encoder.embed(TEXTS)


def _rank(scores: np.ndarray, own: int, answers: list[int]) -> int:
    wrong = [row for row in range(len(scores)) if row != own and row not in answers]
    return sum(scores[row] >= scores[own] for row in wrong)


def test_a_rank_is_the_number_of_wrong_texts_nearer_to_the_query(
    encoder: TextEncoder, embeddings: np.ndarray
) -> None:
    found = find_by_words(encoder, TEXTS, embeddings, n_words=9, max_queries=99, seed=0)
    assert sorted(found.rows.tolist()) == [0, 1, 2, 3, 4]
    for row, rank in zip(found.rows.tolist(), found.ranks.tolist(), strict=True):
        orders = [TEXTS[row], " ".join(reversed(TEXTS[row].split()))]
        assert rank in {_rank(embeddings @ encoder.embed([one])[0], row, []) for one in orders}


def test_the_query_of_a_category_is_the_last_part_of_its_path(
    encoder: TextEncoder, embeddings: np.ndarray
) -> None:
    paths = [("Home", "red"), ("Table", "teal"), ("Home", "ivory"), ("Table", "red"), (), ()]
    found = find_by_category(encoder, paths, embeddings, max_queries=99, seed=0)
    wanted = {
        row: _rank(
            embeddings @ encoder.embed([path[-1]])[0],
            row,
            [other for other in range(6) if paths[other][-1:] in {(), path[-1:]}],
        )
        for row, path in enumerate(paths)
        if path
    }
    assert dict(zip(found.rows.tolist(), found.ranks.tolist(), strict=True)) == wanted


def test_a_text_is_found_by_its_partner(embeddings: np.ndarray) -> None:
    pairs = np.array([[0, 1], [2, 1], [3, 4]], dtype=np.int64)
    found = find_by_partner(embeddings, pairs, max_queries=99, seed=0)
    fits = {0: {1}, 1: {0, 2}, 2: {1}, 3: {4}, 4: {3}}
    asked = {0: 1, 2: 1, 3: 4}
    assert sorted(found.rows.tolist()) == [0, 2, 3]
    for row, rank in zip(found.rows.tolist(), found.ranks.tolist(), strict=True):
        partner = asked[row]
        scores = embeddings @ embeddings[partner]
        assert rank == _rank(scores, row, [partner, *fits[partner]])


def test_an_encoder_with_one_vector_for_all_texts_finds_nothing(encoder: TextEncoder) -> None:
    same = np.tile(np.eye(1, 32, dtype=np.float32), (6, 1))
    found = find_by_words(encoder, TEXTS, same, n_words=9, max_queries=99, seed=0)
    assert found.ranks.tolist() == [5] * 5
    assert found.hit_rate(5) == 0.0


def test_all_words_of_a_title_find_it(encoder: TextEncoder) -> None:
    texts = ["red vase", "teal mug", "ivory clock"]
    assert word_query_hit_rate(encoder, texts, k=1, n_words=9, seed=0) == 1.0


def test_another_text_that_answers_takes_no_place(encoder: TextEncoder) -> None:
    texts = ["red vase", *["red vase Kestrel"] * 5, *["red vase Norrhem"] * 5]
    assert word_query_hit_rate(encoder, texts, k=1, n_words=1, seed=0) >= 10 / 11


def test_texts_without_words_get_no_query(encoder: TextEncoder) -> None:
    assert word_query_hit_rate(encoder, ["", "red vase"], k=1, seed=0) == 1.0
    assert word_query_hit_rate(encoder, ["", ""], seed=0) == 0.0


def test_fewer_queries_estimate_the_same(
    encoder: TextEncoder, planted: Callable[..., Samples]
) -> None:
    texts = planted(300).texts
    whole = word_query_hit_rate(encoder, texts, k=3, n_words=2, seed=0)
    part = word_query_hit_rate(encoder, texts, k=3, n_words=2, seed=1, max_queries=200)
    assert abs(whole - part) < 0.15
    assert 0.0 < whole <= 1.0
