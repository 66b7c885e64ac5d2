"""An exported tower, run by ONNX Runtime on the CPU."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from vision.arrays import Floats
from vision.batches import ImageSource, prepared_batches
from vision.checkpoint import CONFIG_FILE, TowerConfig
from vision.deploy.export import EMBEDDINGS, INPUT, INT8_FILE, LOGITS, MODEL_FILE
from vision.deploy.quantise import saturates
from vision.deploy.session import open_session
from vision.errors import CheckpointError, InvalidArgumentError
from vision.tower import TowerOutput, most_probable_classes

logger = logging.getLogger(__name__)


class OnnxTower:
    """An exported tower with the methods ``embed``, ``predict`` and ``predict_proba``.

    An int8 file of an earlier version has 8-bit weights, whose sums overflow on some processors. On
    such a processor a warning is logged when the file is loaded.

    Args:
        folder: Folder that ``export_onnx`` wrote.
        int8: Whether to run ``model.int8.onnx``.
        threads: Number of threads of one pass. None uses as many as torch.
        capabilities: Instruction sets to check an int8 file against. None is this processor's.

    Raises:
        MissingExtraError: If the extra ``onnx`` is not installed.
        CheckpointError: If the folder does not contain an exported tower, or no int8 file although
            ``int8`` is true.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        int8: bool = False,
        threads: int | None = None,
        capabilities: Mapping[str, Any] | None = None,
    ) -> None:
        path = Path(folder) / (INT8_FILE if int8 else MODEL_FILE)
        config = _read_config(path)
        self.preprocess, self.classes, self.dim = config.preprocess, config.classes, config.dim
        self._session = open_session(path, threads)
        if int8:
            metadata = self._session.get_modelmeta().custom_metadata_map
            _warn_of_saturation(path, metadata, capabilities)

    def outputs(self, images: Tensor) -> TowerOutput:
        """Return embeddings (B, D) and logits (B, C) per target for prepared pictures.

        Args:
            images: Prepared pictures, float32 (B, 3, H, W), as ``build_eval_transform`` returns
                them.

        Raises:
            InvalidArgumentError: If the shape is wrong.
        """
        side = self.preprocess.size
        if images.shape[1:] != (3, side, side):
            raise InvalidArgumentError(
                f"images must have shape (B, 3, {side}, {side}), got {tuple(images.shape)}"
            )
        wanted = [EMBEDDINGS, *(f"{LOGITS}{target}" for target in self.classes)]
        embeddings, *logits = map(
            torch.from_numpy, self._session.run(wanted, {INPUT: images.contiguous().numpy()})
        )
        named = dict(zip(self.classes, logits, strict=True))
        return TowerOutput(embeddings, named, embeddings.new_zeros(len(embeddings), 0))

    def embed(
        self, images: Iterable[ImageSource], *, batch_size: int = 64, progress: bool = False
    ) -> Floats:
        """Return unit-length embeddings, float32 (N, D), in the order of the images.

        Args:
            images: PIL images, file contents or paths, read one batch at a time.
            batch_size: Images in one pass.
            progress: Whether to show Lightning's progress bar.

        Raises:
            ImageError: If an image cannot be read. The message has its position.
        """
        parts = [output.embeddings.numpy() for output in self._infer(images, batch_size, progress)]
        return np.concatenate([np.zeros((0, self.dim), np.float32), *parts])

    def predict(
        self, images: Iterable[ImageSource], *, batch_size: int = 64, progress: bool = False
    ) -> dict[str, NDArray[np.str_]]:
        """Return the name of the most probable class of every target, (N,) for each target.

        Takes the same arguments as ``embed`` and raises the same errors.
        """
        probabilities = self.predict_proba(images, batch_size=batch_size, progress=progress)
        return most_probable_classes(probabilities, self.classes)

    def predict_proba(
        self, images: Iterable[ImageSource], *, batch_size: int = 64, progress: bool = False
    ) -> dict[str, Floats]:
        """Return the class probabilities of every target, float32 (N, C) for each target.

        Takes the same arguments as ``embed`` and raises the same errors.
        """
        parts: dict[str, list[Floats]] = {
            name: [np.zeros((0, len(names)), np.float32)] for name, names in self.classes.items()
        }
        for output in self._infer(images, batch_size, progress):
            for name, logits in output.logits.items():
                parts[name].append(logits.softmax(dim=1).numpy())
        return {name: np.concatenate(chunks) for name, chunks in parts.items()}

    def _infer(
        self, images: Iterable[ImageSource], batch_size: int, progress: bool
    ) -> Iterator[TowerOutput]:
        batches = prepared_batches(
            images, self.preprocess, batch_size=batch_size, progress=progress
        )
        return map(self.outputs, batches)


def _read_config(path: Path) -> TowerConfig:
    folder = path.parent
    if not path.is_file():
        fix = (
            "export it with int8_calibration" if path.name == INT8_FILE else "export_onnx writes it"
        )
        raise CheckpointError(f"{folder} has no {path.name}; {fix}")
    try:
        raw = (folder / CONFIG_FILE).read_text(encoding="utf-8")
        return TowerConfig.model_validate(json.loads(raw))
    except (OSError, ValueError, ValidationError) as error:
        raise CheckpointError(f"{folder} does not hold an exported tower: {error}") from error


def _warn_of_saturation(
    path: Path, metadata: Mapping[str, str], capabilities: Mapping[str, Any] | None
) -> None:
    if capabilities is None:
        capabilities = torch.cpu.get_capabilities()
    if saturates(metadata, capabilities):
        logger.warning(
            "%s has 8-bit weights, whose sums overflow on this processor (AVX2 without VNNI), so "
            "its results may be wrong; export the tower again, or load it with int8=False",
            path,
        )
