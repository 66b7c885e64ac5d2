"""Words that pictures are compared with: names of classes that no training has seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.special import softmax
from scipy.stats import binomtest

from recsys.data.arrays import Doubles, Floats, Ints
from recsys.models.fusion import ItemFusion
from text.encoder import TextEncoder
from vision.labelling.prototypes import fit_temperature

Space = Literal["towers", "items"]
CHANCE = 0.01  # probability with which towers that know nothing may pass for a pair


@dataclass(frozen=True)
class CommonSpace:
    """Where a bundle's pictures and words can be compared, and how probabilities follow.

    Args:
        space: "towers" compares the embeddings of the towers, "items" those of the fusion.
        temperature: Divisor of the cosines.
        accuracy: Share of the photos of val whose category was the nearest name; None if the
            temperature is that of a published checkpoint.
        n_words: Number of these names.
        n_photos: Number of these photos.
    """

    space: Space
    temperature: float
    accuracy: float | None = None
    n_words: int = 0
    n_photos: int = 0

    def probabilities(self, pictures: Floats, words: Floats) -> Doubles:
        """Return the probability of each word for each picture (n, W).

        Args:
            pictures: Embeddings of the pictures in this space (n, D), unit length.
            words: Embeddings of the words in this space (W, D), unit length.
        """
        cosines = pictures.astype(np.float64) @ words.T.astype(np.float64)
        probabilities: Doubles = softmax(cosines / self.temperature, axis=1)
        return probabilities


def common_spaces(picture_dim: int, text_dim: int, fusion: ItemFusion) -> list[Space]:
    """Return the spaces in which pictures and words have embeddings of the same size."""
    spaces: list[Space] = []
    if picture_dim == text_dim:
        spaces.append("towers")
    if {"image", "text"} <= set(fusion.dims):
        spaces.append("items")
    return spaces


def place_pictures(embeddings: Floats, fusion: ItemFusion, space: Space) -> Floats:
    """Return the vision tower's embeddings (n, D_m) in a space (n, D)."""
    return embeddings if space == "towers" else _fuse(fusion, "image", embeddings)


def place_words(
    words: Sequence[str], text: TextEncoder, fusion: ItemFusion, space: Space
) -> Floats:
    """Return the embeddings of words in a space (W, D)."""
    embeddings = text.embed(words)
    return embeddings if space == "towers" else _fuse(fusion, "text", embeddings)


def fit_space(
    space: Space, pictures: Floats, words: Floats, labels: Ints
) -> tuple[CommonSpace, float] | None:
    """Return a space with its temperature and cross-entropy; None if it is no better than chance.

    Chance is to name the most frequent word for every picture.

    Args:
        space: Name of the space.
        pictures: Embeddings of pictures (n, D).
        words: Embeddings of the words that name them (W, D).
        labels: Word of each picture, int64 (n,).
    """
    if len(labels) == 0 or len(words) < 2:
        return None
    cosines = pictures @ words.T
    n_right = int((cosines.argmax(axis=1) == labels).sum())
    share = float(np.bincount(labels).max()) / len(labels)
    if binomtest(n_right, len(labels), share, alternative="greater").pvalue >= CHANCE:
        return None
    found = CommonSpace(
        space,
        temperature=fit_temperature(cosines, labels),
        accuracy=n_right / len(labels),
        n_words=len(words),
        n_photos=len(labels),
    )
    own = found.probabilities(pictures, words)[np.arange(len(labels)), labels]
    return found, -float(np.log(np.maximum(own, 1e-30)).mean())


@torch.inference_mode()
def _fuse(fusion: ItemFusion, modality: str, embeddings: Floats) -> Floats:
    device = next(fusion.parameters()).device
    fused = fusion.encode({modality: torch.from_numpy(embeddings).to(device)})
    return np.asarray(fused.cpu().numpy(), dtype=np.float32)
