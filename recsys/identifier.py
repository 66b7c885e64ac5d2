"""Tell which product is on a photo, or that it is not in the catalogue."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.catalogue import Filters
from recsys.models.gallery import best_and_lead, product_similarities
from recsys.recommender import Recommender, Scored, check_k


class Identified(NamedTuple):
    """What is on a photo.

    Args:
        known: Whether the product is in the catalogue, as far as we can tell.
        probability: That it is.
        candidates: Products, most probable first; scores are probabilities given that it is known.
    """

    known: bool
    probability: float
    candidates: list[Scored]


class ProductIdentifier:
    """Identifies products by nearest catalogue embedding or picture prototype.

    Args:
        recommender: Over the catalogue to identify from; items upserted there count at once.

    Raises:
        MissingPartError: If the bundle was trained without labelled photos.
    """

    def __init__(self, recommender: Recommender) -> None:
        self.recommender = recommender
        self._identification = recommender.bundle.identification

    def identify(self, image: bytes, *, k: int = 5) -> Identified:
        """Return what is on a photo.

        Raises:
            InvalidImageError: If the bytes are no picture we accept.
            ValueError: If ``k`` is out of range.
        """
        check_k(k)
        return self.identify_embedding(self.recommender.embedder.query(None, image), k=k)

    def identify_embedding(self, embedding: NDArray[np.float32], *, k: int = 5) -> Identified:
        """Return what is on a photo with the given query embedding (D,)."""
        check_k(k)
        catalogue = self.recommender.catalogue
        device = catalogue.embeddings.device
        similarities = product_similarities(
            torch.from_numpy(embedding)[None].to(device),
            catalogue.embeddings,
            self._identification.prototypes.to(device),
            self._identification.prototype_rows.to(device),
        ).cpu()
        # Products out of stock are still products: only deleted ones are left out.
        deleted = ~catalogue.mask(Filters(available_only=False))
        similarities[:, torch.from_numpy(deleted)] = -1.0
        calibration = self._identification.calibration
        known = float(calibration.known_probability(*best_and_lead(similarities)))
        probabilities = (similarities[0] / calibration.temperature).softmax(dim=0)
        top = probabilities.topk(min(k, int((~deleted).sum())))
        candidates = [
            Scored(catalogue.item_ids[row], probability, "photo")
            for row, probability in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ]
        return Identified(known >= calibration.threshold, known, candidates)
