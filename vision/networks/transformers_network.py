"""Vision networks of transformers, and the vision half of those that read text, too."""

import inspect
from typing import Any

import torch
from PIL.Image import Resampling
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, PretrainedConfig

from vision.errors import InvalidArgumentError, WeightsError
from vision.networks.weights import UNREACHABLE, not_found, refuse_missing
from vision.transforms import Preprocess


class TransformersNetwork(nn.Module):
    """A transformers vision network that returns its pooled features (B, F).

    Args:
        config: Its architecture.
        network: The network; one with random weights where it is not given.
        pooler: Keep the layer that pools, if it has one. Without it the class token is the feature.
    """

    def __init__(
        self, config: PretrainedConfig, network: Any = None, *, pooler: bool = True
    ) -> None:
        super().__init__()
        models: Any = AutoModel
        self.network = models.from_config(config) if network is None else network
        self.pooler = pooler
        # Networks that never have a pooler are read by their mean, with a class token or without.
        self._reads_class_token = not pooler and _has_class_token(self.network)
        if not pooler:
            self.network.pooler = None
        # Position embeddings are stored at one size; asked for another, they are resampled.
        takes = inspect.signature(self.network.forward).parameters
        flag = "interpolate_pos_encoding"
        self._options = {flag: True} if flag in takes else {}

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, F) of images: pooled, the class token, or the mean of the tokens."""
        output: Any = self.network(pixel_values=images, **self._options)
        pooled: Tensor | None = getattr(output, "pooler_output", None)
        if pooled is None:
            tokens: Tensor = output.last_hidden_state
            pooled = tokens[:, 0] if self._reads_class_token else tokens.mean(dim=1)
        return pooled.flatten(1)

    def set_grad_checkpointing(self) -> None:
        """Recompute activations for the gradient from now on; named as timm names it."""
        network: Any = self.network
        enable = getattr(network, "activation_checkpointing_enable", None)
        # Its name in earlier releases of transformers 5.
        enable = enable or network.gradient_checkpointing_enable
        # The other kind gives no gradient to what follows frozen stages.
        enable({"use_reentrant": False})


def _has_class_token(network: nn.Module) -> bool:
    """Return whether the first token stands for the whole picture."""
    return getattr(getattr(network, "embeddings", None), "cls_token", None) is not None


def build_transformers(
    source: str, pretrained: bool | str, preprocess: Preprocess, drop_path: float
) -> tuple[TransformersNetwork, Preprocess]:
    """Return the network, from (B, 3, H, W) to (B, F), and how pictures are prepared for it.

    Args:
        source: A hub id or a local folder.
        pretrained: As ``build_backbone`` has it.
        preprocess: Size and fit that are wanted.
        drop_path: As ``build_backbone`` has it.

    Raises:
        InvalidArgumentError: If it has no stochastic depth and is to have some.
        WeightsError: If it is not on this machine and cannot be fetched, or does not fit.
    """
    processors: Any = AutoImageProcessor
    try:
        whole = AutoConfig.from_pretrained(source)
        published = processors.from_pretrained(source) if pretrained else None
    except (*UNREACHABLE, ValueError) as error:
        raise not_found(f"transformers/{source}", pretrained) from error
    # CLIP and SigLIP are text and vision networks in one; only one half is wanted.
    config = getattr(whole, "vision_config", whole)
    # Some are published in half precision, which is for inference alone.
    config.dtype = torch.float32
    if hasattr(config, "drop_path_rate"):
        config.drop_path_rate = drop_path
    elif drop_path:
        raise InvalidArgumentError(
            f"drop_path must be 0 for 'transformers/{source}', whose configuration has no "
            f"drop_path_rate, got {drop_path}"
        )
    if published is None:
        config.image_size = preprocess.size
        return TransformersNetwork(config), preprocess
    network, pooler = _load(source, pretrained, config)
    return TransformersNetwork(config, network, pooler=pooler), Preprocess(
        size=preprocess.size,
        mean=tuple(published.image_mean),
        std=tuple(published.image_std),
        interpolation=Resampling(published.resample).name.lower(),
        fit=preprocess.fit,
    )


def _load(source: str, pretrained: bool | str, config: PretrainedConfig) -> tuple[nn.Module, bool]:
    """Return the network with its weights, and whether its pooler is among them."""
    weights = source if isinstance(pretrained, bool) else pretrained
    models: Any = AutoModel
    try:
        network: nn.Module
        network, loading = models.from_pretrained(
            weights, config=config, dtype=torch.float32, output_loading_info=True
        )
    except (*UNREACHABLE, ValueError) as error:
        raise not_found(f"transformers/{source}", pretrained) from error
    except RuntimeError as error:
        raise WeightsError(f"weights of {weights!r} do not fit {source!r}: {error}") from error
    missing = set(loading["missing_keys"])
    pooler = {name for name, _ in network.named_parameters() if name.startswith("pooler.")}
    # A classifier is published without one: it reads the class token.
    poolerless = bool(pooler) and pooler <= missing
    refuse_missing(missing - pooler if poolerless else missing, weights)
    return network, not poolerless
