"""The vision tower: pictures to unit-length embeddings, and to classes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from vision.backbones import Backbone
from vision.images import ImageError, decode, load
from vision.precision import Precision, autocast
from vision.transforms import build_eval_transform

ImageSource: TypeAlias = Image.Image | bytes | Path


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
            ValueError: If the shape is wrong.
        """
        side = self.preprocess.size
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f"images must have shape (B, 3, {side}, {side}), got {tuple(images.shape)}"
            )
        features = self.backbone(images)
        # Distances between near neighbours are smaller than bfloat16's steps.
        with torch.autocast(images.device.type, enabled=False):
            features = features.float()  # (B, F)
            embeddings = F.normalize(self.project(features), dim=1)
            kept = self.dropout(features)
            logits = {name: head(kept) for name, head in zip(self.classes, self.heads, strict=True)}
        return TowerOutput(embeddings, logits)

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
        progress: bool = False,
    ) -> NDArray[np.float32]:
        """Return unit-length embeddings, float32 (N, D), in the order of the images.

        Args:
            images: Pictures, files' bytes or paths; read a batch at a time.
            batch_size: Pictures in one pass.
            device: Where to compute; the tower is moved there. None leaves it where it is.
            precision: ``auto`` is up to twice as fast; embeddings then differ by about 1e-2.
            progress: Show Lightning's progress bar.

        Raises:
            ImageError: If an image cannot be read; names its position.
        """
        parts = [
            output.embeddings.float().cpu().numpy()
            for output in self._infer(images, batch_size, device, precision, progress)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.dim), dtype=np.float32)

    def predict(
        self,
        images: Iterable[ImageSource],
        *,
        batch_size: int = 64,
        device: torch.device | str | None = None,
        precision: Precision = "32-true",
        progress: bool = False,
    ) -> dict[str, NDArray[np.float32]]:
        """Return class probabilities of every target, float32 (N, C); arguments as ``embed``."""
        parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in self.classes}
        for output in self._infer(images, batch_size, device, precision, progress):
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
        progress: bool,
    ) -> Iterator[TowerOutput]:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if device is not None:
            self.to(device)
        was_training = self.training
        self.eval()
        try:
            for batch in self._batches(images, batch_size, progress):
                with torch.inference_mode(), autocast(precision, self.device):
                    output = self.outputs(batch.to(self.device))
                yield output
        finally:
            self.train(was_training)

    def _batches(
        self, images: Iterable[ImageSource], batch_size: int, progress: bool
    ) -> Iterator[Tensor]:
        """Yield prepared pictures (B, 3, H, W); the next batch is decoded meanwhile, in threads."""
        transform = build_eval_transform(self.preprocess)
        count = len(images) if isinstance(images, Sequence) else None
        numbered = enumerate(Tqdm(images, desc="pictures", total=count, disable=not progress))

        def prepare(numbered_image: tuple[int, ImageSource]) -> Tensor:
            position, image = numbered_image
            try:
                prepared: Tensor = transform(_open(image, self.preprocess.size))
            except ImageError as error:
                raise ImageError(f"image {position}: {error}", position) from error
            return prepared

        with ThreadPoolExecutor() as threads:
            coming = [threads.submit(prepare, one) for one in islice(numbered, batch_size)]
            while coming:
                current = coming
                coming = [threads.submit(prepare, one) for one in islice(numbered, batch_size)]
                yield torch.stack([future.result() for future in current])


def _open(image: ImageSource, size: int) -> Image.Image:
    # Twice the size leaves enough pixels for the resampling filter to work with.
    if isinstance(image, Image.Image):
        return image if image.mode == "RGB" else image.convert("RGB")
    if isinstance(image, bytes):
        return decode(image, min_side=2 * size)
    return load(image, min_side=2 * size)
