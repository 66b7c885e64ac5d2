"""Vision networks of the library transformers, and the vision half of its CLIP-like networks."""

import inspect
from typing import Any

import torch
from PIL.Image import Resampling
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    CLIPVisionModelWithProjection,
    PretrainedConfig,
)

from vision.errors import InvalidArgumentError, WeightsError
from vision.networks.weights import UNREACHABLE, not_found, refuse_missing
from vision.transforms import Preprocess


class TransformersNetwork(nn.Module):
    """A vision network of transformers that returns pooled features (B, F).

    Args:
        config: Architecture of the network.
        network: Network with weights. None builds it from the architecture with random weights.
        pooler: Whether to keep the pooling layer, if there is one. Without it the feature is the
            class token.

    Attributes:
        projection: Map (D, F) from features into the space that a CLIP or SigLIP checkpoint shares
            with its texts; None for other networks and random weights.
    """

    def __init__(
        self, config: PretrainedConfig, network: Any = None, *, pooler: bool = True
    ) -> None:
        super().__init__()
        self.projection: Tensor | None = None
        models: Any = AutoModel
        self.network = models.from_config(config) if network is None else network
        self.pooler = pooler
        # A network that never had a pooler is read by the mean of its tokens.
        self._reads_class_token = not pooler and _has_class_token(self.network)
        if not pooler:
            self.network.pooler = None
        # Position embeddings are stored for one size and resampled for others on request.
        accepted = inspect.signature(self.network.forward).parameters
        flag = "interpolate_pos_encoding"
        self._options = {flag: True} if flag in accepted else {}

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, F): the pooled output, the class token, or the mean of the tokens."""
        output: Any = self.network(pixel_values=images, **self._options)
        pooled: Tensor | None = getattr(output, "pooler_output", None)
        if pooled is None:
            tokens: Tensor = output.last_hidden_state
            pooled = tokens[:, 0] if self._reads_class_token else tokens.mean(dim=1)
        return pooled.flatten(1)

    def set_grad_checkpointing(self) -> None:
        """Recompute activations for the gradient from now on; timm has a method of this name."""
        network: Any = self.network
        enable = getattr(network, "activation_checkpointing_enable", None)
        # The name of the method in earlier releases of transformers 5.
        enable = enable or network.gradient_checkpointing_enable
        # Reentrant checkpointing gives no gradient to layers that follow frozen ones.
        enable({"use_reentrant": False})


def _has_class_token(network: nn.Module) -> bool:
    """Return whether the first token of the network represents the whole picture."""
    return getattr(getattr(network, "embeddings", None), "cls_token", None) is not None


def build_transformers(
    source: str, pretrained: bool | str, preprocess: Preprocess, drop_path: float
) -> tuple[TransformersNetwork, Preprocess]:
    """Return the network, from (B, 3, H, W) to (B, F), and the preparation of its pictures.

    Args:
        source: Hub id or local folder.
        pretrained: Weights to load, see ``build_backbone``.
        preprocess: Wanted size and fit of pictures.
        drop_path: Rate of stochastic depth, see ``build_backbone``.

    Raises:
        InvalidArgumentError: If ``drop_path`` is above 0 for a network without stochastic depth.
        WeightsError: If architecture or weights are not on this machine and cannot be downloaded,
            or do not fit each other.
    """
    processors: Any = AutoImageProcessor
    try:
        whole = AutoConfig.from_pretrained(source)
        published = processors.from_pretrained(source) if pretrained else None
    except (*UNREACHABLE, ValueError) as error:
        raise not_found(f"transformers/{source}", pretrained) from error
    # CLIP and SigLIP contain a text and a vision network, of which only the latter is needed.
    config = getattr(whole, "vision_config", whole)
    # Some networks are published in half precision, which cannot be trained.
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
    built = TransformersNetwork(config, network, pooler=pooler)
    built.projection = _load_projection(source, pretrained, whole)
    return built, Preprocess(
        size=preprocess.size,
        mean=tuple(published.image_mean),
        std=tuple(published.image_std),
        interpolation=Resampling(published.resample).name.lower(),
        fit=preprocess.fit,
    )


def _load(source: str, pretrained: bool | str, config: PretrainedConfig) -> tuple[nn.Module, bool]:
    """Return the network with its weights, and whether the weights include a pooler."""
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
    # Classifiers are published without a pooler, because they read the class token.
    poolerless = bool(pooler) and pooler <= missing
    refuse_missing(missing - pooler if poolerless else missing, weights)
    return network, not poolerless


def _load_projection(source: str, pretrained: bool | str, whole: PretrainedConfig) -> Tensor | None:
    """Return what maps the features of a CLIP or SigLIP checkpoint into its common space (D, F)."""
    if whole.model_type == "siglip":  # its features are there already
        return torch.eye(whole.vision_config.hidden_size)
    if whole.model_type != "clip":
        return None
    config = whole.vision_config
    config.projection_dim = whole.projection_dim
    weights = source if isinstance(pretrained, bool) else pretrained
    models: Any = CLIPVisionModelWithProjection
    half, loading = models.from_pretrained(
        weights, config=config, dtype=torch.float32, output_loading_info=True
    )
    # Weights of the image half alone have none.
    lacks = "visual_projection.weight" in loading["missing_keys"]
    published: Tensor = half.visual_projection.weight.detach()
    return None if lacks else published
