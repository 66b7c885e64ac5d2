"""A published sentence encoder, all-MiniLM-L6-v2 (22 million weights), from its package."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from sentence_transformers import SentenceTransformer

from text.checkpoint import load, save
from text.config import TextConfig, TransferConfig
from text.dataset import Samples
from text.finetuning import check_start, finetune
from text.networks.build import build_encoder
from text.networks.published import MINILM
from text.networks.transfer import stages

Planted = Callable[..., Samples]
TITLES = (
    "Kestrel Nordic red vase",
    "红色连衣裙 女 XL",
    "メンズ ジーンズ 32インチ",
    "Sonnenblumenöl 1,5 l 🌻",
    "",
    "very long " * 400,
)


@pytest.fixture(scope="module")
def minilm() -> Path:
    folder = MINILM.find()
    if folder is None:
        pytest.skip(f"the package {MINILM.package} is not installed")
    return folder


@pytest.fixture
def config(minilm: Path) -> TextConfig:
    return TextConfig(
        checkpoint=str(minilm), max_tokens=16, batch_size=8, epochs=1, learning_rate=1e-3
    )


def test_embeddings_are_those_of_sentence_transformers(minilm: Path) -> None:
    encoder, theirs = load(minilm), SentenceTransformer(str(minilm), device="cpu")
    wanted = theirs.encode(list(TITLES), normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(encoder.embed(TITLES), wanted, atol=1e-4)
    assert (encoder.max_tokens, encoder.dim) == (theirs.max_seq_length, 384)


def test_the_hub_id_is_read_from_the_package_without_a_network(
    minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    named = TextConfig(checkpoint=MINILM.network, max_tokens=256)
    check_start(named)
    encoder = build_encoder(named, [], seed=0)
    np.testing.assert_array_equal(encoder.embed(TITLES), load(minilm).embed(TITLES))
    # The licence stays with what is trained from it, also by way of a folder.
    assert encoder.origin == MINILM.origin
    save(encoder, tmp_path / "tuned")
    again = build_encoder(TextConfig(checkpoint=str(tmp_path / "tuned")), [], seed=0)
    assert again.origin == MINILM.origin


def test_low_rank_updates_are_trained_and_read_by_sentence_transformers(
    config: TextConfig, planted: Planted, tmp_path: Path
) -> None:
    samples = planted(16)
    config = config.model_copy(update={"transfer": TransferConfig(lora_rank=4)})
    tuned = finetune(samples, config, workdir=tmp_path / "work", seed=0).encoder
    untuned = build_encoder(config, [], seed=0)
    assert np.abs(tuned.embed(samples.texts) - untuned.embed(samples.texts)).max() > 1e-3
    save(tuned, tmp_path / "tuned")
    theirs = SentenceTransformer(str(tmp_path / "tuned"), device="cpu")
    wanted = theirs.encode(samples.texts, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(tuned.embed(samples.texts), wanted, atol=1e-4)


def test_frozen_stages_keep_what_was_published(
    config: TextConfig, planted: Planted, tmp_path: Path
) -> None:
    config = config.model_copy(update={"transfer": TransferConfig(frozen_stages=6)})
    tuned = finetune(planted(16), config, workdir=tmp_path, seed=0).encoder.backbone
    found, published = stages(tuned), build_encoder(config, [], seed=0).backbone
    assert len(found) == 7  # the words and six layers
    before, after = dict(published.named_parameters()), dict(tuned.named_parameters())
    kept = {name for name, value in after.items() if value.equal(before[name])}
    assert kept >= {name for stage in found[:6] for name in stage}
    assert not kept & {name for name in found[6] if not name.endswith("key.bias")}
