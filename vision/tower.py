"""The vision tower: pictures in, unit-length embeddings and class probabilities out."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from vision.arrays import Floats
from vision.batches import ImageSource, prepared_batches
from vision.errors import InvalidArgumentError
from vision.networks.backbones import Backbone
from vision.precision import Precision, autocast
from vision.squares import ReadSquare, read_square
from vision.test_time import Views, draw_views

logger = logging.getLogger(__name__)


class TowerOutput(NamedTuple):
    """Everything that one pass through the tower computes."""

    embeddings: Tensor  # (B, D), unit length
    logits: dict[str, Tensor]  # target name -> (B, C)
    features: Tensor  # (B, F) of the backbone; F is 0 where a graph does not return them


class VisionTower(nn.Module):
    """A backbone with a projection to embeddings and one linear classifier per target.

    The classifiers read the backbone's features and not the embedding, so that neither of the two
    limits the other.

    Args:
        backbone: Network, with its feature size and the way pictures are prepared for it.
        dim: Embedding size D.
        classes: Class names of every target, such as the levels of a category path.
        dropout: Share of features set to zero before the classifiers during training.
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
        self.n_features = backbone.dim
        self.dim = dim
        self.classes = {target: tuple(names) for target, names in classes.items()}
        # The norm keeps a single large feature from deciding every distance. A bias would add the
        # same constant to all embeddings, which only brings them closer to each other.
        self.project = nn.Sequential(
            nn.Linear(backbone.dim, dim, bias=False), nn.BatchNorm1d(dim, affine=False)
        )
        if backbone.projection is not None:
            self._take_projection(backbone.projection)
        self.dropout = nn.Dropout(dropout)
        # A list and not a dict of modules: target names may contain dots, module names may not.
        self.heads = nn.ModuleList(
            nn.Linear(backbone.dim, len(names)) for names in self.classes.values()
        )
        # The memory layout in which convolutions run fastest, on CPUs and on tensor cores.
        self.to(memory_format=torch.channels_last)

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    @torch.no_grad()
    def _take_projection(self, published: Tensor) -> None:
        """Embed as a checkpoint does whose texts are in the same space, if the sizes agree."""
        parts: Any = self.project
        linear, norm = parts
        if len(published) != self.dim:
            logger.warning(
                "dim is %d, so the checkpoint's projection to %d is left out: set dim = %d to "
                "compare pictures with texts by its other half",
                self.dim,
                len(published),
                len(published),
            )
            return
        linear.weight.copy_(published)
        norm.momentum = 0.0  # statistics of our pictures would move them away from the texts

    def outputs(self, images: Tensor) -> TowerOutput:
        """Return embeddings (B, D) and logits (B, C) per target, float32, from one pass.

        Args:
            images: Prepared pictures (B, 3, H, W), as ``build_eval_transform`` returns them.

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
        """Return embeddings (B, D) and logits (B, C) per target for features (B, F)."""
        # Distances between near neighbours are smaller than the steps of bfloat16.
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            embeddings = F.normalize(self.project(features), dim=1)
            kept = self.dropout(features)
            logits = {name: head(kept) for name, head in zip(self.classes, self.heads, strict=True)}
        return TowerOutput(embeddings, logits, features)

    def averaged(self, images: Tensor, views: Views) -> TowerOutput:
        """Return the mean embedding, scaled to unit length, and the mean logits over all views.

        Args:
            images: Prepared pictures (B, 3, H, W).
            views: Views to average, see ``vision.test_time.draw_views``.
        """
        return average([self.outputs(view) for view in draw_views(images, views)])

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
        read: ReadSquare = read_square,
    ) -> Floats:
        """Return unit-length embeddings, float32 (N, D), in the order of the images.

        Args:
            images: PIL images, file contents or paths, read one batch at a time.
            batch_size: Images in one pass.
            device: Device to move the tower to and to compute on. None leaves the tower in place.
            precision: Arithmetic of the network. ``auto`` is up to twice as fast and changes
                embeddings by about 1e-2.
            views: Views of each image to average. ``flip`` averages 2 and takes twice as long,
                ``crops`` averages 12 and takes twelve times as long.
            progress: Whether to show Lightning's progress bar.
            read: Reader of the images that are paths.

        Raises:
            ImageError: If an image cannot be read. The message has its position.
        """
        parts = [
            output.embeddings.float().cpu().numpy()
            for output in self._infer(images, batch_size, device, precision, views, progress, read)
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
    ) -> dict[str, NDArray[np.str_]]:
        """Return the name of the most probable class of every target, (N,) for each target.

        Takes the same arguments as ``embed`` and raises the same errors. Every target is decided
        alone; ``vision.hierarchy`` makes the levels of a category path agree.
        """
        probabilities = self.predict_proba(
            images,
            batch_size=batch_size,
            device=device,
            precision=precision,
            views=views,
            progress=progress,
        )
        return most_probable_classes(probabilities, self.classes)

    def predict_proba(
        self,
        images: Iterable[ImageSource],
        *,
        batch_size: int = 64,
        device: torch.device | str | None = None,
        precision: Precision = "32-true",
        views: Views = "one",
        progress: bool = False,
    ) -> dict[str, Floats]:
        """Return the class probabilities of every target, float32 (N, C) for each target.

        Takes the same arguments as ``embed`` and raises the same errors.
        """
        parts: dict[str, list[Floats]] = {name: [] for name in self.classes}
        for output in self._infer(images, batch_size, device, precision, views, progress):
            for name, logits in output.logits.items():
                parts[name].append(logits.softmax(dim=1).cpu().numpy())
        empty = {
            name: np.zeros((0, len(names)), np.float32) for name, names in self.classes.items()
        }
        return {name: np.concatenate([empty[name], *chunks]) for name, chunks in parts.items()}

    def _infer(
        self,
        images: Iterable[ImageSource],
        batch_size: int,
        device: torch.device | str | None,
        precision: Precision,
        views: Views,
        progress: bool,
        read: ReadSquare = read_square,
    ) -> Iterator[TowerOutput]:
        """Yield the output of one batch after another, computed in evaluation mode."""
        if device is not None:
            self.to(device)
        was_training = self.training
        self.eval()
        try:
            batches = prepared_batches(
                images, self.preprocess, batch_size=batch_size, progress=progress, read=read
            )
            for batch in batches:
                with torch.inference_mode(), autocast(precision, self.device):
                    output = self.averaged(batch.to(self.device), views)
                yield output
        finally:
            self.train(was_training)


def average(outputs: Sequence[TowerOutput]) -> TowerOutput:
    """Return the mean embedding, scaled to unit length, and mean logits and features of views.

    Args:
        outputs: Output of the tower for each view of the same pictures, at least one.
    """
    if len(outputs) == 1:
        return outputs[0]
    embeddings = torch.stack([output.embeddings for output in outputs]).mean(dim=0)
    logits = {
        name: torch.stack([output.logits[name] for output in outputs]).mean(dim=0)
        for name in outputs[0].logits
    }
    features = torch.stack([output.features for output in outputs]).mean(dim=0)
    return TowerOutput(F.normalize(embeddings, dim=1), logits, features)


def most_probable_classes(
    probabilities: Mapping[str, Floats], classes: Mapping[str, Sequence[str]]
) -> dict[str, NDArray[np.str_]]:
    """Return the name of the most probable class in every row, (N,) for each target.

    Args:
        probabilities: Class probabilities (N, C) of every target.
        classes: Class names of the same targets.
    """
    return {
        target: np.asarray(classes[target], dtype=np.str_)[rows.argmax(axis=1)]
        for target, rows in probabilities.items()
    }
