"""Classes from a few pictures each, without training: the mean of their embeddings."""

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from vision.batches import ImageSource
from vision.dataset import UNKNOWN, Samples
from vision.errors import CheckpointError, InvalidArgumentError, TrainingError
from vision.labelling.readable import Readable
from vision.tower import VisionTower

logger = logging.getLogger(__name__)

VECTORS_FILE = "prototypes.safetensors"
CONFIG_FILE = "prototypes.json"
FORMAT_VERSION = 1
# The temperature that embeddings are trained at by default, where no picture can be left out.
DEFAULT_TEMPERATURE = 0.05
TEMPERATURES = (0.01, 1.0)


class PrototypesConfig(BaseModel):
    """What prototypes.json holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = Field(description="Version of this layout.")
    tower: str = Field(description="Digest of the tower's weights.")
    target: str = Field(description="What the classes are classes of.")
    classes: tuple[str, ...] = Field(description="Class names.")
    shots: tuple[int, ...] = Field(description="Pictures behind each class.")
    temperature: float = Field(gt=0, description="Of the softmax over cosines.")


@dataclass(frozen=True, eq=False)
class Prototypes:
    """A classifier with one direction per class, next to a tower that stays as it is.

    Attributes:
        tower: Embeds the pictures.
        target: What the classes are classes of.
        classes: Class names, C.
        vectors: Unit-length direction of each class, float32 (C, D).
        shots: Pictures behind each class, C.
        temperature: Of the softmax over cosines.
    """

    tower: VisionTower
    target: str
    classes: tuple[str, ...]
    vectors: NDArray[np.float32]
    shots: tuple[int, ...]
    temperature: float

    def predict(self, images: Iterable[ImageSource]) -> NDArray[np.float32]:
        """Return class probabilities, float32 (n, C), by cosine with each class.

        Raises:
            ImageError: If an image cannot be read; names its position.
        """
        cosines = self.tower.embed(images) @ self.vectors.T
        probabilities: NDArray[np.float32] = softmax(cosines / self.temperature, axis=1)
        return probabilities

    def with_class(self, name: str, images: Sequence[ImageSource]) -> "Prototypes":
        """Return prototypes with one more class, the last; the temperature stays.

        Args:
            name: The new class.
            images: Its pictures; one is enough, such as the product's studio picture.

        Raises:
            InvalidArgumentError: If the name is taken or there is no picture.
            ImageError: If an image cannot be read; names its position.
        """
        if name in self.classes:
            raise InvalidArgumentError(
                f"name must be new, got {name!r}, which is a class of {self.target}"
            )
        if not images:
            raise InvalidArgumentError(f"images of {name!r} must be at least one picture, got none")
        vector = _unit(self.tower.embed(images).sum(axis=0, keepdims=True))
        return replace(
            self,
            classes=(*self.classes, name),
            vectors=np.concatenate([self.vectors, vector]),
            shots=(*self.shots, len(images)),
        )

    def save(self, folder: str | Path) -> None:
        """Write all but the tower into a folder, made if it is not there."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = PrototypesConfig(
            format_version=FORMAT_VERSION,
            tower=_digest(self.tower),
            target=self.target,
            classes=self.classes,
            shots=self.shots,
            temperature=self.temperature,
        )
        save_file({"vectors": self.vectors}, folder / VECTORS_FILE)
        (folder / CONFIG_FILE).write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, tower: VisionTower) -> "Prototypes":
        """Return the prototypes saved in a folder, for the tower that they were built with.

        Raises:
            CheckpointError: If the folder does not hold whole prototypes of this tower.
        """
        folder = Path(folder)
        try:
            raw = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            config = PrototypesConfig.model_validate(raw)
            vectors = load_file(folder / VECTORS_FILE)["vectors"]
        except (OSError, ValidationError) as error:
            raise CheckpointError(f"{folder} does not hold prototypes: {error}") from error
        except (ValueError, KeyError, SafetensorError) as error:
            raise CheckpointError(f"the prototypes in {folder} are damaged: {error}") from error
        if config.format_version != FORMAT_VERSION:
            raise CheckpointError(
                f"{folder}: format_version must be {FORMAT_VERSION}, got {config.format_version}; "
                "these prototypes were written by another release"
            )
        # Another tower's directions have the right shape and no meaning.
        if config.tower != _digest(tower):
            raise CheckpointError(
                f"the prototypes in {folder} were built with another tower; build them again"
            )
        return cls(tower, config.target, config.classes, vectors, config.shots, config.temperature)


def build_prototypes(tower: VisionTower, samples: Samples, target: str) -> Prototypes:
    """Return one prototype per class of a target: the mean direction of its pictures.

    The class means of prototypical networks (Snell et al., 2017, https://arxiv.org/abs/1703.05175)
    and of nearest-class-mean classifiers (Mensink et al., 2013,
    https://doi.org/10.1109/TPAMI.2013.83), for cosine instead of Euclidean distance, and of a tower
    trained for classes and neighbours rather than in episodes. The temperature is that with the
    least cross-entropy where every picture is asked about against a mean without it; with no class
    of two pictures it is 0.05.

    Args:
        tower: Stays as it is.
        samples: Pictures; those whose label is unknown are not read, unreadable ones left out.
        target: Target of the samples whose classes are learned; the tower need not know them.

    Raises:
        InvalidArgumentError: If there is no such target, or two classes have one name.
        TrainingError: If no picture of a class can be read.
    """
    if target not in samples.classes:
        raise InvalidArgumentError(
            f"target must be one of {', '.join(samples.classes)}, got {target!r}"
        )
    classes = tuple(samples.classes[target])
    if len(set(classes)) < len(classes):
        twice = sorted({name for name in classes if classes.count(name) > 1})
        raise InvalidArgumentError(
            f"classes of {target!r} must have different names, got {twice} twice"
        )
    known = samples.take(np.flatnonzero(samples.targets[target] != UNKNOWN))
    pictures = Readable(known.images, known.root, tower.preprocess)
    embeddings = tower.embed(pictures)
    labels = known.targets[target][pictures.rows]
    shots = np.bincount(labels, minlength=len(classes))
    if not shots.all():
        missing = [name for name, count in zip(classes, shots, strict=True) if count == 0]
        raise TrainingError(
            f"every class of {target!r} needs a readable picture, got none of {missing}; add one "
            "or leave the class out"
        )
    sums = np.zeros((len(classes), tower.dim), dtype=np.float32)
    np.add.at(sums, labels, embeddings)
    repeated = shots[labels] > 1
    temperature = DEFAULT_TEMPERATURE
    if repeated.any():
        cosines = leave_one_out(embeddings, labels, sums)
        temperature = fit_temperature(cosines[repeated], labels[repeated])
    else:
        logger.info("no class of %s has two pictures; its temperature is %s", target, temperature)
    return Prototypes(tower, target, classes, _unit(sums), tuple(shots.tolist()), temperature)


def leave_one_out(
    embeddings: NDArray[np.float32], labels: NDArray[np.int64], sums: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the cosine (n, C) of every picture with every class, its own without the picture.

    Args:
        embeddings: Unit length, (n, D).
        labels: Class indices, int64 (n,).
        sums: Sum of the embeddings of each class, (C, D).
    """
    cosines = embeddings @ _unit(sums).T
    others = _unit(sums[labels] - embeddings)
    cosines[np.arange(len(labels)), labels] = (embeddings * others).sum(axis=1)
    return cosines


def fit_temperature(cosines: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the temperature of least cross-entropy, between 0.01 and 1.

    Args:
        cosines: (n, C).
        labels: Class indices, int64 (n,).
    """

    def cost(log_temperature: float) -> float:
        logs = log_softmax(cosines / np.exp(log_temperature), axis=1)
        return -float(logs[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(cost, bounds=np.log(TEMPERATURES), method="bounded").x))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = vectors / np.maximum(lengths, 1e-12)
    return unit


def _digest(tower: VisionTower) -> str:
    weights = {name: value.cpu().contiguous() for name, value in tower.state_dict().items()}
    return hashlib.sha256(safetensors.torch.save(weights)).hexdigest()
