"""Encoders on disk."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from text.checkpoint import load, save
from text.config import TextConfig
from text.dataset import Samples
from text.encoder import TextEncoder
from text.errors import CheckpointError
from text.finetuning import finetune
from text.networks.hub import find_origin
from text.networks.packages import Origin
from text.networks.projection import Dense

TITLES = ("Kestrel Nordic red vase", "红色连衣裙 女 XL", "Sonnenblumenöl 1,5 l 🌻", "")


def _edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")


@pytest.fixture
def folder(encoder: TextEncoder, tmp_path: Path) -> Path:
    """Return a saved encoder with a projection."""
    encoder.projection.append(Dense(32, 8, activation="torch.nn.modules.activation.Tanh"))
    save(encoder, tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "lasttoken", "mean_sqrt_len_tokens"])
def test_a_round_trip_gives_identical_embeddings(
    encoder: TextEncoder, tmp_path: Path, pooling: str
) -> None:
    encoder.pooling, encoder.prompt, encoder.max_tokens = pooling, "query: ", 12
    encoder.projection.append(Dense(32, 16, activation="torch.nn.modules.activation.Tanh"))
    save(encoder, tmp_path / "new" / "folder")
    loaded = load(tmp_path / "new" / "folder")
    np.testing.assert_array_equal(loaded.embed(TITLES), encoder.embed(TITLES))
    assert (loaded.dim, loaded.prompt, loaded.max_tokens) == (16, "query: ", 12)


def test_saving_twice_writes_the_same_bytes(encoder: TextEncoder, tmp_path: Path) -> None:
    def contents(folder: Path) -> dict[Path, bytes]:
        save(encoder, folder)
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {path.relative_to(folder): path.read_bytes() for path in files}

    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def test_only_safetensors_and_text_are_written(folder: Path) -> None:
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors"}


def test_a_saved_folder_means_the_same_in_the_published_format(folder: Path) -> None:
    """Computes the embeddings from the files alone, as the format is documented."""
    modules = json.loads((folder / "modules.json").read_text())
    assert [entry["type"].split(".")[-1] for entry in modules] == [
        "Transformer",
        "Pooling",
        "Dense",
        "Normalize",
    ]
    assert json.loads((folder / "1_Pooling/config.json").read_text())["pooling_mode_mean_tokens"]
    tokens = AutoTokenizer.from_pretrained(folder)(list(TITLES), padding=True, return_tensors="pt")
    model = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    dense = load_file(folder / "2_Dense" / "model.safetensors")
    wanted = []
    with torch.inference_mode():
        for vectors, mask in zip(
            model(**tokens).last_hidden_state, tokens["attention_mask"], strict=True
        ):
            mean = sum(v for v, real in zip(vectors, mask, strict=True) if real) / mask.sum()
            projected = torch.tanh(dense["linear.weight"] @ mean + dense["linear.bias"])
            wanted.append((projected / projected.norm()).tolist())
    np.testing.assert_allclose(load(folder).embed(TITLES), wanted, atol=1e-5)


def test_a_plain_transformers_folder_is_pooled_by_the_mean_with_a_warning(
    encoder: TextEncoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder.backbone.save_pretrained(tmp_path)
    encoder.tokenizer.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert "no modules.json: pooling its tokens by the mean" in caplog.text
    np.testing.assert_array_equal(loaded.embed(TITLES), encoder.embed(TITLES))


def test_an_unused_pooler_is_neither_kept_nor_drawn(encoder: TextEncoder, tmp_path: Path) -> None:
    BertModel(BertConfig.from_dict(encoder.backbone.config.to_dict())).save_pretrained(tmp_path)
    encoder.tokenizer.save_pretrained(tmp_path)
    state = torch.random.get_rng_state()
    loaded = load(tmp_path)
    torch.testing.assert_close(torch.random.get_rng_state(), state)
    assert not [name for name, _ in loaded.named_parameters() if "pooler" in name]


@pytest.mark.parametrize("published", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_loaded_and_trained_as_float32(
    encoder: TextEncoder,
    planted: Callable[..., Samples],
    tmp_path: Path,
    published: torch.dtype,
) -> None:
    encoder.projection.append(Dense(32, 16, activation="torch.nn.modules.activation.Tanh"))
    wanted = encoder.embed(TITLES)
    save(encoder.to(published), tmp_path / "half")
    for file in ("model.safetensors", "2_Dense/model.safetensors"):
        weights = load_file(tmp_path / "half" / file)
        assert {weight.dtype for weight in weights.values()} == {published}
    loaded = load(tmp_path / "half")
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}
    np.testing.assert_allclose(loaded.embed(TITLES), wanted, atol=0.02)
    config = TextConfig(checkpoint=str(tmp_path / "half"), epochs=1, learning_rate=2e-5)
    result = finetune(planted(40), config, workdir=tmp_path / "run", seed=0)
    changes = np.abs(result.encoder.embed(TITLES) - loaded.embed(TITLES))
    assert 0 < changes.max() < 0.1


def test_the_current_format_of_pooling_settings_is_read(folder: Path) -> None:
    (folder / "1_Pooling/config.json").write_text(
        json.dumps({"embedding_dimension": 32, "pooling_mode": "cls", "include_prompt": True})
    )
    assert load(folder).pooling == "cls"


def test_a_default_prompt_is_put_before_every_text(folder: Path) -> None:
    bare = load(folder).embed(["query: vase"])
    settings = {"prompts": {"q": "query: ", "d": ""}, "default_prompt_name": "q"}
    _edit(folder / "config_sentence_transformers.json", **settings)
    np.testing.assert_allclose(load(folder).embed(["vase"]), bare, atol=1e-6)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"must be a transformers .* no config\.json"):
        load(tmp_path)


def test_pickled_weights_are_refused(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"with model\.safetensors"):
        load(folder)


def test_damaged_weights_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="reading it failed"):
        load(folder)


def test_weights_that_are_missing_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("embeddings.word_embeddings.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks .*word_embeddings"):
        load(folder)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            "1_Pooling/config.json",
            {"pooling_mode_cls_token": True},
            "one pooling of .*, got cls, mean",
        ),
        ("1_Pooling/config.json", {"pooling_mode": "weightedmean"}, "got weightedmean"),
        ("1_Pooling/config.json", {"include_prompt": False}, "include_prompt = false"),
        ("2_Dense/config.json", {"activation_function": "os.system"}, "activation must be one of"),
        ("2_Dense/config.json", {"use_residual": True}, "use_residual is not supported"),
        ("2_Dense/config.json", {"out_features": 9}, "size mismatch"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case is not supported"),
    ],
)
def test_a_setting_that_is_not_supported_is_refused(
    folder: Path, file: str, changes: dict[str, Any], message: str
) -> None:
    _edit(folder / file, **changes)
    with pytest.raises(CheckpointError, match=message):
        load(folder)


@pytest.mark.parametrize("kind", ["CNN", "evil.Module"])
def test_an_unknown_module_is_refused(folder: Path, kind: str) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["type"] = kind
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointError, match=r"must list Transformer, Pooling, then Dense"):
        load(folder)


def test_settings_that_are_not_json_are_refused(folder: Path) -> None:
    (folder / "1_Pooling/config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json must be a readable JSON file"):
        load(folder)


def test_a_folder_of_another_origin_is_named_by_its_hash(
    encoder: TextEncoder, tmp_path: Path
) -> None:
    assert encoder.origin is None
    save(encoder, tmp_path / "mine")
    assert load(tmp_path / "mine").origin is None
    origin = find_origin(str(tmp_path / "mine"))
    assert (origin.name, origin.source, origin.licence) == ("mine", "file", None)
    assert find_origin("someone/encoder") == Origin(
        name="someone/encoder", source="hub", licence=None
    )
    (tmp_path / "mine" / "began_with.json").write_text('{"name": 1}')
    with pytest.raises(CheckpointError, match="must name the weights of the start"):
        load(tmp_path / "mine")
