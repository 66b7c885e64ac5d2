"""Encoders from a configuration."""

from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants

from text.checkpoint import save
from text.config import TextConfig
from text.encoder import TextEncoder
from text.errors import WeightsError
from text.networks.build import build_encoder

TITLES = ("Kestrel Nordic red vase", "Kestrel Retro mug", "红色连衣裙 女 XL")


@pytest.mark.parametrize("layers", [0, 2])
def test_the_same_texts_and_seed_give_the_same_encoder(
    small_config: TextConfig, layers: int
) -> None:
    config = small_config.model_copy(update={"dim": 16, "layers": layers})
    first, second, other = (
        build_encoder(config, TITLES, seed=seed).embed(TITLES) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - other).max() > 0.01


@pytest.mark.parametrize("layers", [0, 2])
def test_a_checkpoint_keeps_its_own_settings(
    small_config: TextConfig, tmp_path: Path, layers: int
) -> None:
    new = small_config.model_copy(update={"layers": layers})
    encoder = build_encoder(new, TITLES, seed=0)
    save(encoder, tmp_path)
    config = small_config.model_copy(update={"checkpoint": str(tmp_path), "hidden": 999})
    built = build_encoder(config, [], seed=5)
    np.testing.assert_array_equal(built.embed(TITLES), encoder.embed(TITLES))


def test_configuration_overrides_the_checkpoint(encoder: TextEncoder, tmp_path: Path) -> None:
    save(encoder, tmp_path)
    config = TextConfig(checkpoint=str(tmp_path), pooling="cls", dim=8, max_tokens=5)
    built = build_encoder(config, [], seed=0)
    assert (built.pooling, built.dim, built.max_tokens) == ("cls", 8, 5)


def test_a_limit_of_the_checkpoint_is_never_exceeded(encoder: TextEncoder, tmp_path: Path) -> None:
    save(encoder, tmp_path)
    config = TextConfig(checkpoint=str(tmp_path), max_tokens=4000)
    assert build_encoder(config, [], seed=0).max_tokens == encoder.max_tokens


def test_an_untrained_projection_keeps_neighbours(
    encoder: TextEncoder, small_config: TextConfig
) -> None:
    texts = [f"{word} vase {n}" for word in ("red", "teal", "ivory") for n in range(3)]
    wide = build_encoder(small_config, texts, seed=0)
    same_size = build_encoder(small_config.model_copy(update={"dim": 32}), texts, seed=0)
    assert len(same_size.dense_layers) == 0
    wider = build_encoder(small_config.model_copy(update={"dim": 48}), texts, seed=0)
    np.testing.assert_allclose(
        wider.embed(texts) @ wider.embed(texts).T,
        wide.embed(texts) @ wide.embed(texts).T,
        atol=1e-5,
    )


def test_the_error_for_a_missing_checkpoint_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    config = TextConfig(checkpoint="sentence-transformers/all-MiniLM-L12-v2")
    with pytest.raises(WeightsError, match="run `hf download sentence-transformers/all-MiniLM-L12"):
        build_encoder(config, TITLES, seed=0)


@pytest.mark.parametrize("name", ["./no/such/folder", "../up", "a/b/c", "/nowhere"])
def test_a_folder_that_does_not_exist_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(WeightsError, match="must be an existing folder or a hub id, got"):
        build_encoder(TextConfig(checkpoint=name), TITLES, seed=0)


def test_texts_without_words_are_refused(small_config: TextConfig) -> None:
    with pytest.raises(ValueError, match="texts must have at least one word to build"):
        build_encoder(small_config, ["", " \u200b"], seed=0)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="heads must divide hidden, got 3 and 32"):
        TextConfig(hidden=32, heads=3)
