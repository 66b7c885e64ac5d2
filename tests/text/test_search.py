"""The measure of search by words."""

from collections.abc import Callable

from text.dataset import Samples
from text.encoder import TextEncoder
from text.search import word_query_hit_rate


def test_all_words_of_a_title_find_it(encoder: TextEncoder) -> None:
    texts = ["red vase", "teal mug", "ivory clock"]
    assert word_query_hit_rate(encoder, texts, k=1, n_words=9, seed=0) == 1.0


def test_a_text_that_answers_as_well_takes_no_place(encoder: TextEncoder) -> None:
    texts = ["red vase", *["red vase Kestrel"] * 5, *["red vase Norrhem"] * 5]
    assert word_query_hit_rate(encoder, texts, k=1, n_words=1, seed=0) >= 10 / 11


def test_texts_without_words_are_not_asked_for(encoder: TextEncoder) -> None:
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
