"""What a report says of an encoder."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from text.dataset import Samples
from text.encoder import TextEncoder
from text.report import evaluate_encoder
from text.report.evaluate import NO_LETTERS, script
from text.report.metrics import search_result, target_result
from text.retrieval import find_by_category, find_by_partner, find_by_words

Planted = Callable[..., Samples]


@pytest.fixture
def samples(planted: Planted) -> Samples:
    made = planted(120)
    rooms = [("Home", "Kitchen") if "mug" in text else ("Home", "Living") for text in made.texts]
    pairs = np.array([[0, 1], [2, 3], [5, 0]], dtype=np.int64)
    return replace(made, categories=rooms, pairs=pairs)


def test_every_kind_of_query_is_measured(encoder: TextEncoder, samples: Samples) -> None:
    report = evaluate_encoder(encoder, samples, seed=3)
    embeddings = encoder.embed(samples.texts)
    options = {"max_queries": 2_000, "seed": 3}
    wanted = {
        name: find_by_words(encoder, samples.texts, embeddings, n_words=count, **options)
        for name, count in (("one word", 1), ("two words", 2), ("four words", 4))
    }
    wanted["category"] = find_by_category(encoder, samples.categories, embeddings, **options)
    wanted["what goes with it"] = find_by_partner(embeddings, samples.pairs, **options)
    assert report.searches == {
        name: search_result(found.ranks, seed=3) for name, found in wanted.items()
    }
    assert report.targets == {
        target: target_result(embeddings, labels, seed=3)
        for target, labels in samples.targets.items()
    }
    assert (report.encoder, report.dim, report.n_texts) == ("BertModel", 32, 120)
    assert report == evaluate_encoder(encoder, samples, seed=3)


def test_scripts_are_measured_apart(encoder: TextEncoder, samples: Samples) -> None:
    report = evaluate_encoder(encoder, samples)
    scripts = [script(text) for text in samples.texts]
    assert {name: one.n_queries for name, one in report.scripts.items()} == {
        name: scripts.count(name) for name in scripts
    }
    mean = sum(one.hit_rate.mean * one.n_queries for one in report.scripts.values()) / 120
    assert mean == pytest.approx(report.searches["two words"].hit_rate.mean)


def test_texts_alone_are_enough(encoder: TextEncoder) -> None:
    report = evaluate_encoder(encoder, Samples(["red vase", "", "teal mug"]))
    assert list(report.searches) == ["one word", "two words", "four words"]
    assert report.targets == {}


def test_texts_without_a_word_are_refused(encoder: TextEncoder) -> None:
    with pytest.raises(ValueError, match="a text with a word, got 2 texts without words"):
        evaluate_encoder(encoder, Samples(["", " "]))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Sonnenblumenöl 1,5 l", "Latin"),
        ("Кофеварка «Дом» 220V", "Cyrillic"),
        ("红色连衣裙 女 XL", "Chinese or Japanese"),
        ("革のショルダーバッグ 黒", "Japanese"),
        ("ｼﾞｰﾝｽﾞ", "Japanese"),
        ("가죽 핸드백", "Hangul"),
        ("حقيبة يد", "Arabic"),
        ("🧥 220", NO_LETTERS),
        ("", NO_LETTERS),
    ],
)
def test_the_script_is_that_of_most_letters(text: str, name: str) -> None:
    assert script(text) == name
