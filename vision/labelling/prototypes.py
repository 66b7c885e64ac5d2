"""Classes from a few pictures each, without training: the means of their embeddings."""

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

from vision.arrays import Floats, Ints
from vision.batches import ImageSource
from vision.dataset import UNKNOWN, Samples
from vision.errors import CheckpointError, InvalidArgumentError, TrainingError
from vision.files import whole_files
from vision.labelling.readable import Readable
from vision.tower import VisionTower, most_probable_classes

logger = logging.getLogger(__name__)

VECTORS_FILE = "prototypes.safetensors"
CONFIG_FILE = "prototypes.json"
FORMAT_VERSION = 1
# Default temperature of the embedding losses, for classes of one picture each.
DEFAULT_TEMPERATURE = 0.05
TEMPERATURES = (0.01, 1.0)


class PrototypesConfig(BaseModel):
    """The contents of prototypes.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = Field(description="Version of this layout.")
    tower: str = Field(description="Digest of the tower's weights.")
    target: str = Field(description="Name of the target that the classes belong to.")
    classes: tuple[str, ...] = Field(description="Class names.")
    shots: tuple[int, ...] = Field(description="Number of pictures behind each class.")
    temperature: float = Field(gt=0, description="Temperature of the softmax over cosines.")


@dataclass(frozen=True, eq=False)
class Prototypes:
    """A classifier with one direction per class, beside a tower that is not trained.

    Attributes:
        tower: Tower that embeds the pictures.
        target: Name of the target that the classes belong to.
        classes: Class names, C.
        vectors: Unit-length direction of each class, float32 (C, D).
        shots: Number of pictures behind each class, C.
        temperature: Temperature of the softmax over cosines.
    """

    tower: VisionTower
    target: str
    classes: tuple[str, ...]
    vectors: Floats
    shots: tuple[int, ...]
    temperature: float

    def predict(self, images: Iterable[ImageSource]) -> NDArray[np.str_]:
        """Return the name of the most probable class of every image, (n,).

        Raises:
            ImageError: If an image cannot be read. The message has its position.
        """
        probabilities = {self.target: self.predict_proba(images)}
        return most_probable_classes(probabilities, {self.target: self.classes})[self.target]

    def predict_proba(self, images: Iterable[ImageSource]) -> Floats:
        """Return class probabilities, float32 (n, C), from the cosines with the classes.

        Raises:
            ImageError: If an image cannot be read. The message has its position.
        """
        cosines = self.tower.embed(images) @ self.vectors.T
        probabilities: Floats = softmax(cosines / self.temperature, axis=1)
        return probabilities

    def with_class(self, name: str, images: Sequence[ImageSource]) -> "Prototypes":
        """Return prototypes with one more class at the end, and with the same temperature.

        Args:
            name: Name of the new class.
            images: Pictures of the class. One is enough, such as the studio picture of a product.

        Raises:
            InvalidArgumentError: If the name is taken or ``images`` is empty.
            ImageError: If an image cannot be read. The message has its position.
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
        """Write everything except the tower into a folder, which is created if missing.

        Raises:
            FileAccessError: If a file cannot be written.
        """
        config = PrototypesConfig(
            format_version=FORMAT_VERSION,
            tower=_digest(self.tower),
            target=self.target,
            classes=self.classes,
            shots=self.shots,
            temperature=self.temperature,
        )
        text = config.model_dump_json(indent=2) + "\n"
        with whole_files(Path(folder), last=CONFIG_FILE) as scratch:
            save_file({"vectors": self.vectors}, scratch / VECTORS_FILE)
            (scratch / CONFIG_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, tower: VisionTower) -> "Prototypes":
        """Return the prototypes saved in a folder.

        Args:
            folder: Folder that ``save`` wrote.
            tower: Tower that the prototypes were built with.

        Raises:
            CheckpointError: If the folder does not contain complete prototypes of this tower.
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
        # Directions of another tower may have the same shape and mean nothing here.
        if config.tower != _digest(tower):
            raise CheckpointError(
                f"the prototypes in {folder} were built with another tower; build them again"
            )
        return cls(tower, config.target, config.classes, vectors, config.shots, config.temperature)


def build_prototypes(tower: VisionTower, samples: Samples, target: str) -> Prototypes:
    """Return one prototype per class of a target: the mean direction of its pictures.

    These are the class means of prototypical networks (Snell et al., 2017,
    https://arxiv.org/abs/1703.05175) and of nearest-class-mean classifiers (Mensink et al., 2013,
    https://doi.org/10.1109/TPAMI.2013.83), with cosine instead of Euclidean distance. The tower was
    trained for classes and neighbours and not in episodes. The temperature minimises the
    cross-entropy of pictures that are compared with a class mean without themselves. If every class
    has one picture, the temperature is 0.05.

    Args:
        tower: Tower that embeds the pictures. It is not changed.
        samples: Pictures and labels. Pictures that are unreadable or without a label are left out.
        target: Target of the samples whose classes are learned. The tower need not have it.

    Raises:
        InvalidArgumentError: If the target is unknown, or two classes have the same name.
        TrainingError: If a class has no readable picture.
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
        logger.info(
            "every class of %s has one picture, so its temperature is the default, %s",
            target,
            temperature,
        )
    return Prototypes(tower, target, classes, _unit(sums), tuple(shots.tolist()), temperature)


def leave_one_out(embeddings: Floats, labels: Ints, sums: Floats) -> Floats:
    """Return the cosine (n, C) of every picture with every class mean, leaving itself out.

    Args:
        embeddings: Unit-length embeddings (n, D).
        labels: Class indices, int64 (n,).
        sums: Sum of the embeddings of each class (C, D).
    """
    cosines = embeddings @ _unit(sums).T
    others = _unit(sums[labels] - embeddings)
    cosines[np.arange(len(labels)), labels] = (embeddings * others).sum(axis=1)
    return cosines


def fit_temperature(cosines: Floats, labels: Ints) -> float:
    """Return the temperature with the lowest cross-entropy, between 0.01 and 1.

    Args:
        cosines: Cosines of pictures with classes (n, C).
        labels: Class indices, int64 (n,).
    """

    def cost(log_temperature: float) -> float:
        logs = log_softmax(cosines / np.exp(log_temperature), axis=1)
        return -float(logs[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(cost, bounds=np.log(TEMPERATURES), method="bounded").x))


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = vectors / np.maximum(lengths, 1e-12)
    return unit


def _digest(tower: VisionTower) -> str:
    weights = {name: value.cpu().contiguous() for name, value in tower.state_dict().items()}
    return hashlib.sha256(safetensors.torch.save(weights)).hexdigest()
