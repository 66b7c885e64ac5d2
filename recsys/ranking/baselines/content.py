"""Recommend items that look or read like those of the user."""

from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys.data.arrays import Bools, Floats, Ints
from recsys.data.interactions import Interactions
from recsys.errors import InvalidArgumentError
from recsys.ranking.baselines.contract import require_fitted, require_known, require_past


class ContentKNN:
    """Scores a candidate by the sum of its cosines to the distinct items that the user has.

    Args:
        vectors: Vector of every item, such as of its title, (N, D); 0 where there is none.
        name: Name in tables.
    """

    def __init__(self, vectors: NDArray[np.floating], *, name: str = "content-kNN") -> None:
        self.name = name
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        self._vectors = np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)
        self._taken: sparse.csr_matrix | None = None

    def fit(
        self, interactions: Interactions, *, now_us: int, held_out: Bools | None = None
    ) -> Self:
        """Remember what every user has, which is all that it learns; see ``Baseline.fit``.

        Raises:
            LeakageError: If an event is at or after ``now_us``.
            InvalidArgumentError: If the number of vectors is not that of the items.
        """
        require_past(interactions, now_us)
        if len(self._vectors) != interactions.n_items:
            raise InvalidArgumentError(
                f"vectors must have one row for each of {interactions.n_items} items, got "
                f"{len(self._vectors)}"
            )
        self._taken = interactions.matrix()
        return self

    def scores(self, user_rows: Ints) -> Floats:
        """Return the sum of cosines to the user's items; see ``Baseline.scores``."""
        taken = require_fitted(self._taken, self.name)
        require_known(user_rows, taken.shape[0])
        scores: Floats = (taken[user_rows] @ self._vectors) @ self._vectors.T
        return scores
