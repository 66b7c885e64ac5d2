"""Save and load encoders in the folder format of sentence-transformers, as safetensors and JSON."""

import json
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForTextEncoding,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    SiglipTextModel,
)

from text.encoder import TextEncoder
from text.errors import CheckpointError
from text.files import whole_files
from text.networks.packages import Origin
from text.networks.pairs import SIGLIP_TEXT, is_pair, split_text_half
from text.networks.projection import Dense

logger = logging.getLogger(__name__)

_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_lasttoken": "lasttoken",
}

# Of this library alone; others leave them out.
ORIGIN_FILE, TEMPERATURE_FILE = "began_with.json", "temperature.json"

# These modules change nothing here: dropout is off, and all outputs have unit length.
_NEUTRAL = ("Normalize", "Dropout")


def save(encoder: TextEncoder, folder: Path) -> None:
    """Write an encoder so that ``load`` and sentence-transformers give the same embeddings.

    Args:
        encoder: Encoder to save.
        folder: Folder to write to, created if missing; files of the same names are replaced.

    Raises:
        FileAccessError: If a file cannot be written.
    """
    with whole_files(folder, last="config.json") as scratch:
        _write(encoder, scratch)


def _write(encoder: TextEncoder, folder: Path) -> None:
    with _quiet_transformers():
        encoder.backbone.save_pretrained(folder)
        encoder.tokenizer.save_pretrained(folder)
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": encoder.max_tokens})
    settings: dict[str, Any] = {"similarity_fn_name": "cosine"}
    if encoder.prompt:
        settings |= {"prompts": {"default": encoder.prompt}, "default_prompt_name": "default"}
    _write_json(folder / "config_sentence_transformers.json", settings)
    if encoder.origin is not None:
        _write_json(folder / ORIGIN_FILE, encoder.origin.model_dump())
    if encoder.temperature is not None:
        _write_json(folder / TEMPERATURE_FILE, encoder.temperature)
    flags = {flag: mode == encoder.pooling for flag, mode in _POOLING_FLAGS.items()}
    width = encoder.backbone.config.hidden_size
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    _write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **flags})
    for dense in encoder.dense_layers:
        modules.append(("Dense", f"{len(modules)}_Dense"))
        _save_dense(dense, folder / modules[-1][1])
    modules.append(("Normalize", f"{len(modules)}_Normalize"))
    _write_json(folder / modules[-1][1] / "config.json", {})
    entries = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{name}"}
        for n, (name, path) in enumerate(modules)
    ]
    _write_json(folder / "modules.json", entries)


def load(folder: Path) -> TextEncoder:
    """Return the encoder of a sentence-transformers or plain transformers folder, in float32.

    A folder without ``modules.json`` does not say how to pool: the mean is used, with a warning.
    Of a CLIP or SigLIP checkpoint the text half is read, with its projection.

    Args:
        folder: Folder that ``save``, sentence-transformers or transformers' ``save_pretrained``
            wrote.

    Raises:
        CheckpointError: If the folder is of another format, is damaged, lacks safetensors
            weights, or has modules that are not supported.
    """
    if not (folder / "modules.json").is_file():
        if is_pair(folder):
            return _load_text_half(folder)
        logger.warning("%s has no modules.json: pooling its tokens by the mean", folder)
        return _load_transformer(folder, folder)
    modules = [
        (entry["type"].rpartition(".")[2], folder / entry["path"])
        for entry in _read_json(folder / "modules.json")
    ]
    names = [name for name, _ in modules if name not in _NEUTRAL]
    if names[:2] != ["Transformer", "Pooling"] or set(names[2:]) - {"Dense"}:
        raise CheckpointError(
            f"{folder}/modules.json must list Transformer, Pooling, then Dense and Normalize, "
            f"got {', '.join(name for name, _ in modules)}"
        )
    paths = dict(modules)
    encoder = _load_transformer(folder, paths["Transformer"])
    encoder.pooling = _read_pooling(paths["Pooling"])
    encoder.projection.extend([_load_dense(path) for name, path in modules if name == "Dense"])
    if (folder / TEMPERATURE_FILE).is_file():
        encoder.temperature = float(_read_json(folder / TEMPERATURE_FILE))
    return encoder.eval()


def _load_text_half(folder: Path) -> TextEncoder:
    """Return the text half of a CLIP or SigLIP checkpoint, with its projection."""
    whole, tokenizer, missing = _read_transformer(folder)
    _check_tokenizer(tokenizer, folder)
    _check_whole(whole, [name for name in missing if not name.startswith("vision_model.")], folder)
    config = whole.config.text_config
    half = split_text_half(whole)
    limits = (tokenizer.model_max_length, config.max_position_embeddings)
    encoder = TextEncoder(
        half.backbone,
        tokenizer,
        pooling="lasttoken",
        projection=[half.projection],
        max_tokens=min(int(limit) for limit in limits if limit),
    )
    encoder.temperature = half.temperature
    return encoder.eval()


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    if not tokenizer.is_fast:
        raise CheckpointError(
            f"{folder} must hold a tokenizer.json, or what one can be made from, "
            f"got {type(tokenizer).__name__}"
        )


def _check_whole(backbone: PreTrainedModel, lacking: Collection[str], folder: Path) -> None:
    if lacking:
        raise CheckpointError(
            f"{folder} must hold every weight of a {type(backbone).__name__}, "
            f"but it lacks {', '.join(sorted(lacking)[:5])}"
        )


def _load_transformer(folder: Path, weights: Path) -> TextEncoder:
    """Return an encoder that pools by the mean, in evaluation mode."""
    if not (weights / "config.json").is_file():
        raise CheckpointError(
            f"{weights} must be a transformers or sentence-transformers folder, but it has no "
            "config.json"
        )
    backbone, tokenizer, missing = _read_transformer(weights)
    _check_tokenizer(tokenizer, weights)
    limits = [tokenizer.model_max_length, _read_settings(weights).get("max_seq_length")]
    # A tokenizer without a limit has a model_max_length of 1e30.
    max_tokens = min(int(limit) for limit in (*limits, 8192) if limit)
    _check_whole(backbone, [one for one in missing if not one.startswith("pooler.")], weights)
    return TextEncoder(
        backbone,
        tokenizer,
        pooling="mean",
        max_tokens=max_tokens,
        prompt=_read_prompt(folder),
        origin=_read_origin(folder / ORIGIN_FILE),
    ).eval()


def _read_transformer(
    weights: Path,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Collection[str]]:
    """Return the model in float32 without its pooler, its tokenizer, and the missing weights."""
    try:
        # transformers draws weights that the files lack; the caller's generator stays as it is.
        with _quiet_transformers(), torch.random.fork_rng(devices=[]):
            config = AutoConfig.from_pretrained(weights)
            # In an encoder-decoder such as T5, only the encoder reads text.
            model: Any = AutoModelForTextEncoding if config.is_encoder_decoder else AutoModel
            if config.model_type == SIGLIP_TEXT:  # AutoModel does not know it
                model = SiglipTextModel
            # Some models are published in half precision, which loses small updates of weights.
            backbone, report = model.from_pretrained(
                weights,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(weights)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"{weights} must hold a transformers model with model.safetensors and a tokenizer, "
            f"but reading it failed: {error}"
        ) from error
    if getattr(backbone, "pooler", None) is not None:
        backbone.pooler = None  # BERT has one, and the poolings here do not read it
    return backbone, tokenizer, report["missing_keys"]


def _read_settings(weights: Path) -> dict[str, Any]:
    path = weights / "sentence_bert_config.json"
    settings: dict[str, Any] = _read_json(path) if path.is_file() else {}
    if settings.get("do_lower_case"):
        raise CheckpointError(f"{path}: do_lower_case is not supported, got true, wanted false")
    return settings


def _read_pooling(path: Path) -> str:
    settings = _read_json(path / "config.json")
    mode = settings.get("pooling_mode")
    modes = [mode] if isinstance(mode, str) else list(mode or [])
    modes += [name for flag, name in _POOLING_FLAGS.items() if settings.get(flag)]
    if len(modes) != 1 or modes[0] not in _POOLING_FLAGS.values():
        raise CheckpointError(
            f"{path}/config.json must set exactly one pooling of "
            f"{', '.join(_POOLING_FLAGS.values())}, got {', '.join(modes) or settings}"
        )
    if not settings.get("include_prompt", True):
        raise CheckpointError(f"{path}/config.json: include_prompt = false is not supported")
    return modes[0]


def _read_prompt(folder: Path) -> str:
    path = folder / "config_sentence_transformers.json"
    settings = _read_json(path) if path.is_file() else {}
    name = settings.get("default_prompt_name")
    return str(settings["prompts"][name]) if name else ""


def _read_origin(path: Path) -> Origin | None:
    if not path.is_file():
        return None
    try:
        return Origin.model_validate(_read_json(path))
    except ValidationError as error:
        raise CheckpointError(f"{path} must name the weights of the start: {error}") from error


def _save_dense(dense: Dense, folder: Path) -> None:
    linear = dense.linear
    settings = {
        "in_features": linear.in_features,
        "out_features": linear.out_features,
        "bias": linear.bias is not None,
        "activation_function": dense.activation_name,
    }
    _write_json(folder / "config.json", settings)
    weights = {f"linear.{name}": value.contiguous() for name, value in linear.state_dict().items()}
    save_file(weights, folder / "model.safetensors")


def _load_dense(folder: Path) -> Dense:
    settings = _read_json(folder / "config.json")
    if settings.get("use_residual"):
        raise CheckpointError(f"{folder}/config.json: use_residual is not supported")
    try:
        dense = Dense(
            settings["in_features"],
            settings["out_features"],
            bias=settings.get("bias", True),
            activation=settings.get("activation_function", "torch.nn.modules.activation.Tanh"),
        )
        dense.load_state_dict(load_file(folder / "model.safetensors"))
    except (KeyError, ValueError, RuntimeError, OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} must hold a Dense module, but reading it failed: {error}"
        ) from error
    return dense


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} must be a readable JSON file, but reading it failed: {error}"
        ) from error


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence the progress bars of transformers, and its warnings about unused weights."""
    verbosity = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.logging.enable_progress_bar()
