"""The text tower."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from text.dataset import Samples
from text.encoder import TextEncoder, pad
from text.networks.projection import Dense
from text.tokens.normalize import normalize

TITLES = (
    "Kestrel Nordic red vase",
    "红色连衣裙 女 XL",
    "メンズ ジーンズ 32インチ",
    "Sonnenblumenöl 1,5 l – Größe XL",
    "Winter 🧥👨‍👩‍👧 coat 2-pack",
    "a" * 10_000,
    "",
)


def _by_hand(encoder: TextEncoder, text: str) -> list[float]:
    """Return the embedding of one text alone: token vectors, their mean, unit length, as loops."""
    ids = encoder.tokenizer(normalize(text))["input_ids"][: encoder.max_tokens]
    with torch.inference_mode():
        tokens = encoder.backbone(input_ids=torch.tensor([ids])).last_hidden_state[0].tolist()
    mean = [sum(column) / len(tokens) for column in zip(*tokens, strict=True)]
    length = sum(value * value for value in mean) ** 0.5
    return [value / length for value in mean]


def test_embedding_is_the_unit_length_mean_of_the_token_vectors(encoder: TextEncoder) -> None:
    wanted = [_by_hand(encoder, title) for title in TITLES]
    np.testing.assert_allclose(encoder.embed(TITLES), wanted, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_an_embedding_does_not_depend_on_its_batch(encoder: TextEncoder, batch_size: int) -> None:
    wanted = encoder.embed(TITLES)
    np.testing.assert_allclose(encoder.embed(TITLES, batch_size=batch_size), wanted, atol=1e-5)
    backwards = encoder.embed(TITLES[::-1], batch_size=batch_size)[::-1]
    np.testing.assert_allclose(backwards, wanted, atol=1e-5)


def test_token_ids_in_padding_do_not_matter(encoder: TextEncoder) -> None:
    ids = encoder.tokenize(TITLES)["input_ids"]
    one, mask = pad(ids, 0)
    other, _ = pad(ids, 17)
    with torch.inference_mode():
        torch.testing.assert_close(encoder(one, mask), encoder(other, mask), atol=1e-5, rtol=0)


def test_embeddings_have_unit_length_and_titles_differ(encoder: TextEncoder) -> None:
    embeddings = encoder.embed(TITLES)
    assert embeddings.shape == (len(TITLES), encoder.dim)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-5)
    cosines = embeddings @ embeddings.T
    assert cosines[~np.eye(len(TITLES), dtype=bool)].max() < 0.999


def test_an_empty_text_has_one_embedding_however_it_is_written(encoder: TextEncoder) -> None:
    embeddings = encoder.embed(["", "   ", "\u200b\x00", "™"])
    assert np.isfinite(embeddings).all()
    np.testing.assert_allclose(embeddings, embeddings[:1].repeat(4, axis=0), atol=1e-6)


def test_spellings_of_one_title_have_one_embedding(encoder: TextEncoder) -> None:
    one, other = encoder.embed(["Größe XL  Vase", "Gro\u0308ße ＸＬ vase\n"])
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_no_texts_give_no_embeddings(encoder: TextEncoder) -> None:
    assert encoder.embed([]).shape == (0, encoder.dim)


def test_embedding_keeps_training_or_evaluation_mode(encoder: TextEncoder) -> None:
    encoder.train()
    encoder.embed(TITLES)
    assert encoder.training


def test_the_projection_decides_the_embedding_size(encoder: TextEncoder) -> None:
    projected = TextEncoder(
        encoder.backbone,
        encoder.tokenizer,
        pooling="mean",
        projection=[Dense(32, 24), Dense(24, 8)],
        max_tokens=16,
    )
    assert projected.dim == 8
    np.testing.assert_allclose(np.linalg.norm(projected.embed(TITLES), axis=1), 1.0, atol=1e-5)


def test_words_of_a_planted_title_are_linearly_readable(
    encoder: TextEncoder, planted: Callable[..., Samples]
) -> None:
    samples = planted(400, seed=1)
    embeddings = np.c_[encoder.embed(samples.texts), np.ones(400)]
    brands = np.eye(6)[samples.targets["brand"]]
    weights, *_ = np.linalg.lstsq(embeddings[:300], brands[:300], rcond=None)
    right = (embeddings[300:] @ weights).argmax(axis=1) == samples.targets["brand"][300:]
    assert right.mean() > 0.95


def test_one_string_is_refused(encoder: TextEncoder) -> None:
    with pytest.raises(ValueError, match="texts must be a sequence of strings, got 'Kestrel vase'"):
        encoder.embed("Kestrel vase")


def test_a_batch_size_that_is_not_positive_is_refused(encoder: TextEncoder) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        encoder.embed(["vase"], batch_size=0)


def test_an_unknown_pooling_lists_the_known_ones(encoder: TextEncoder) -> None:
    with pytest.raises(ValueError, match=r"pooling must be one of mean, .*, got 'sum'"):
        TextEncoder(encoder.backbone, encoder.tokenizer, pooling="sum", max_tokens=8)
