"""What of an encoder is trained."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from text.checkpoint import load, save
from text.config import TextConfig, TransferConfig
from text.dataset import Samples
from text.encoder import TextEncoder
from text.finetuning import finetune
from text.networks.build import build_encoder
from text.networks.transfer import merge_lora, restrict_learning, stages

Planted = Callable[..., Samples]
CONFIG = TextConfig(hidden=16, heads=2, layers=3, vocab_size=400, batch_size=16, epochs=2)


@pytest.fixture
def deep(planted: Planted) -> TextEncoder:
    return build_encoder(CONFIG, planted(40).texts, seed=0)


@pytest.fixture
def given(deep: TextEncoder, tmp_path: Path) -> str:
    """Return the folder of a saved encoder."""
    save(deep, tmp_path / "given")
    return str(tmp_path / "given")


def _weights(encoder: TextEncoder) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in encoder.named_parameters()}


def test_the_first_stage_is_the_word_embeddings_and_each_layer_is_one_more(
    deep: TextEncoder,
) -> None:
    found = stages(deep.backbone)
    assert len(found) == 4
    assert all(name.startswith("embeddings.") for name in found[0])
    for number, names in enumerate(found[1:]):
        assert all(name.startswith(f"encoder.layer.{number}.") for name in names)
    every = [name for names in found for name in names]
    assert every == [name for name, _ in deep.backbone.named_parameters()]


def test_an_encoder_without_layers_is_one_stage(planted: Planted) -> None:
    encoder = build_encoder(CONFIG.model_copy(update={"layers": 0}), planted(40).texts, seed=0)
    assert len(stages(encoder.backbone)) == 1


@pytest.mark.parametrize(("frozen", "dim"), [(0, 16), (2, 16), ("all", 8)])
def test_frozen_stages_keep_their_weights_and_the_others_learn(
    planted: Planted, given: str, tmp_path: Path, frozen: int, dim: int
) -> None:
    transfer = TransferConfig(frozen_stages=frozen)
    config = CONFIG.model_copy(update={"checkpoint": given, "dim": dim, "transfer": transfer})
    samples = planted(40)
    before = _weights(build_encoder(config, samples.texts, seed=0))
    encoder = finetune(samples, config, workdir=tmp_path / "work", seed=0).encoder
    names = stages(encoder.backbone)[: 4 if frozen == "all" else frozen]
    kept = {f"backbone.{name}" for stage in names for name in stage}
    changed = {name for name, value in _weights(encoder).items() if not value.equal(before[name])}
    assert not changed & kept
    # Adding the same number to every key changes no attention.
    assert {name for name in before if not name.endswith("key.bias")} - kept <= changed
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def test_low_rank_updates_start_at_zero_and_are_merged_into_the_layers(
    planted: Planted, given: str, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(
        update={"checkpoint": given, "transfer": TransferConfig(lora_rank=2), "learning_rate": 0.02}
    )
    samples = planted(40)
    start = build_encoder(config, samples.texts, seed=0)
    untouched = start.embed(samples.texts)
    restrict_learning(start, config.transfer)
    np.testing.assert_array_equal(start.embed(samples.texts), untouched)

    encoder = finetune(samples, config, workdir=tmp_path / "work", seed=0).encoder
    before, after = _weights(load(Path(given))), _weights(encoder)
    assert list(before) == list(after)
    for name, value in before.items():
        update = after[name] - value
        if name.endswith("weight") and "encoder.layer" in name and "LayerNorm" not in name:
            assert torch.linalg.matrix_rank(update, atol=1e-5) == 2, name
        else:
            assert update.count_nonzero() == 0, name
    save(encoder, tmp_path / "saved")
    np.testing.assert_array_equal(
        load(tmp_path / "saved").embed(samples.texts), encoder.embed(samples.texts)
    )


def test_merging_changes_no_embedding(deep: TextEncoder, planted: Planted) -> None:
    texts = planted(40).texts
    restrict_learning(deep, TransferConfig(lora_rank=2))
    with torch.no_grad():
        for name, parameter in deep.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    adapted = deep.embed(texts)
    merge_lora(deep)
    np.testing.assert_allclose(deep.embed(texts), adapted, atol=1e-5)


def test_settings_that_do_not_fit_the_encoder_are_refused(
    deep: TextEncoder, planted: Planted
) -> None:
    with pytest.raises(ValueError, match=r"frozen_stages must be at most 4 .* got 5"):
        restrict_learning(deep, TransferConfig(frozen_stages=5))
    with pytest.raises(ValueError, match="frozen_stages = all freezes every weight: set dim"):
        restrict_learning(deep, TransferConfig(frozen_stages="all"))
    shallow = build_encoder(CONFIG.model_copy(update={"layers": 0}), planted(40).texts, seed=0)
    with pytest.raises(ValueError, match="lora_rank = 2 needs an encoder with linear layers"):
        restrict_learning(shallow, TransferConfig(lora_rank=2))


def test_without_peft_the_error_says_how_to_install_it(
    deep: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"pip install 'vitrine-recsys\[lora\]'"):
        restrict_learning(deep, TransferConfig(lora_rank=2))


def test_low_rank_updates_train_alone() -> None:
    with pytest.raises(ValidationError, match="leave frozen_stages at its default"):
        TransferConfig(lora_rank=2, frozen_stages=1)
