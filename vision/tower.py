"""The vision tower: pictures to unit-length embeddings, and to classes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from vision.batches import ImageSource, prepared_batches
from vision.errors import InvalidArgumentError
from vision.networks.backbones import Backbone
from vision.precision import Precision, autocast
from vision.test_time import Views, draw_views


class TowerOutput(NamedTuple):
    """Everything that one pass through the tower gives."""

    embeddings: Tensor  # (B, D), unit length
    logits: dict[str, Tensor]  # target name -> (B, C)


class VisionTower(nn.Module):
    """A backbone with a projection to embeddings and one linear classifier per target.

    The classifiers read the backbone's features, not the embedding, so neither limits the other.

    Args:
        backbone: The network, its feature size and how pictures are prepared for it.
        dim: Embedding size D.
        classes: Class names of every target, such as the levels of a category path.
        dropout: Share of features dropped before the classifiers, in training.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        dim: int,
        classes: Mapping[str, Sequence[str]],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.backbone = backbone.network
        self.preprocess = backbone.preprocess
        self.spec = backbone.spec
        self.dim = dim
        self.classes = {target: tuple(names) for target, names in classes.items()}
        # The norm keeps one loud feature from deciding every distance; without bias, for a constant
        # added to all embeddings only brings them closer to each other.
        self.project = nn.Sequential(
            nn.Linear(backbone.dim, dim, bias=False), nn.BatchNorm1d(dim, affine=False)
        )
        self.dropout = nn.Dropout(dropout)
        # A list, because a module's name may not hold the dots and spaces that a target's may.
        self.heads = nn.ModuleList(
            nn.Linear(backbone.dim, len(names)) for names in self.classes.values()
        )
        # The layout that convolutions are fastest in, on processors and on tensor cores.
        self.to(memory_format=torch.channels_last)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def outputs(self, images: Tensor) -> TowerOutput:
        """Return embeddings (B, D) and logits (B, C) per target, float32, from one pass.

        Args:
            images: Prepared pictures (B, 3, H, W), as ``build_eval_transform`` makes them.

        Raises:
            InvalidArgumentError: If the shape is wrong.
        """
        side = self.preprocess.size
        if images.ndim != 4 or images.shape[1] != 3:
            raise InvalidArgumentError(
                f"images must have shape (B, 3, {side}, {side}), got {tuple(images.shape)}"
            )
        return self.read(self.backbone(images))

    def read(self, features: Tensor) -> TowerOutput:
        """Return embeddings (B, D) and logits (B, C) per target of features (B, F)."""
        # Distances between near neighbours are smaller than bfloat16's steps.
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            embeddings = F.normalize(self.project(features), dim=1)
            kept = self.dropout(features)
            logits = {name: head(kept) for name, head in zip(self.classes, self.heads, strict=True)}
        return TowerOutput(embeddings, logits)

    def averaged(self, images: Tensor, views: Views) -> TowerOutput:
        """Return the mean over views of embeddings, again of unit length, and of logits.

        Args:
            images: Prepared pictures (B, 3, H, W).
            views: Which views; see ``vision.test_time.draw_views``.
        """
        outputs = [self.outputs(view) for view in draw_views(images, views)]
        if len(outputs) == 1:
            return outputs[0]
        embeddings = torch.stack([output.embeddings for output in outputs]).mean(dim=0)
        logits = {
            name: torch.stack([output.logits[name] for output in outputs]).mean(dim=0)
            for name in self.classes
        }
        return TowerOutput(F.normalize(embeddings, dim=1), logits)

    def forward(self, images: Tensor) -> Tensor:
        """Return unit-length embeddings (B, D) of prepared pictures (B, 3, H, W)."""
        return self.outputs(images).embeddings

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        """Return logits (B, C) of every target for prepared pictures (B, 3, H, W)."""
        return self.outputs(images).logits

    def embed(
        self,
        images: Iterable[ImageSource],
        *,
        batch_size: int = 64,
        device: torch.device | str | None = None,
        precision: Precision = "32-true",
        views: Views = "one",
        progress: bool = False,
    ) -> NDArray[np.float32]:
        """Return unit-length embeddings, float32 (N, D), in the order of the images.

        Args:
            images: Pictures, files' bytes or paths; read a batch at a time.
            batch_size: Pictures in one pass.
            device: Where to compute; the tower is moved there. None leaves it where it is.
            precision: ``auto`` is up to twice as fast; embeddings then differ by about 1e-2.
            views: Views of each picture that are averaged; 2 for ``flip`` and 12 for ``crops``,
                which take as many times as long.
            progress: Show Lightning's progress bar.

        Raises:
            ImageError: If an image cannot be read; names its position.
        """
        parts = [
            output.embeddings.float().cpu().numpy()
            for output in self._infer(images, batch_size, device, precision, views, progress)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.dim), dtype=np.float32)

    def predict(
        self,
        images: Iterable[ImageSource],
        *,
        batch_size: int = 64,
        device: torch.device | str | None = None,
        precision: Precision = "32-true",
        views: Views = "one",
        progress: bool = False,
    ) -> dict[str, NDArray[np.float32]]:
        """Return class probabilities of every target, float32 (N, C); arguments as ``embed``."""
        parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in self.classes}
        for output in self._infer(images, batch_size, device, precision, views, progress):
            for name, logits in output.logits.items():
                parts[name].append(logits.softmax(dim=1).cpu().numpy())
        empty = {name: np.zeros((0, len(of)), np.float32) for name, of in self.classes.items()}
        return {name: np.concatenate([empty[name], *chunks]) for name, chunks in parts.items()}

    def _infer(
        self,
        images: Iterable[ImageSource],
        batch_size: int,
        device: torch.device | str | None,
        precision: Precision,
        views: Views,
        progress: bool,
    ) -> Iterator[TowerOutput]:
        if device is not None:
            self.to(device)
        was_training = self.training
        self.eval()
        try:
            batches = prepared_batches(
                images, self.preprocess, batch_size=batch_size, progress=progress
            )
            for batch in batches:
                with torch.inference_mode(), autocast(precision, self.device):
                    output = self.averaged(batch.to(self.device), views)
                yield output
        finally:
            self.train(was_training)
