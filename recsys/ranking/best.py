"""The best items of some users, as arrays and as a table."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.arrays import Ints
from recsys.ranking.candidates import SOURCES
from recsys.ranking.profiles import UserProfiles
from recsys.ranking.rankers import SimpleRanker

RANKER_FAILED = "ranker_failed"  # why an answer is degraded: a simple recommender made it

RESULTS = {
    "user": pl.Int64,
    "rank": pl.Int64,
    "item_id": pl.String,
    "score": pl.Float64,
    "source": pl.String,
    "propensity": pl.Float64,
    "probability": pl.Float64,
    "degraded": pl.String,
}


class Offered(NamedTuple):
    """What the sources offer to U users, beside the scores of all items.

    Args:
        scores: Scores of the ranker (U, N); minus infinity outside the mask.
        by_source: Which items each source offers, bool (U, N), by the source's name.
    """

    scores: NDArray[np.float32]
    by_source: Mapping[str, NDArray[np.bool_]]


class Best(NamedTuple):
    """The best candidates of B users, K each, best first.

    Args:
        rows: Item rows (B, K).
        scores: Scores (B, K).
        features: Features that the scores come from (B, K, F).
        sources: What speaks most for each, as positions in ``SOURCES``, int64 (B, K).
        counts: Number of the K that may be shown to each user, int64 (B,); the rest is padding.
        propensities: Probability with which each stands at its place (B, K).
        probabilities: Probability that the user takes each within the window, NaN where it is
            unknown (B, K).
        exclude_seen: Whether items of the users' own histories were left out.
        profiles: Profiles of the users, for the reasons.
        simple: The simple recommender that ranked, because the ranker failed; None if it did not.
    """

    rows: Tensor
    scores: Tensor
    features: Tensor
    sources: Tensor
    counts: Tensor
    propensities: Tensor
    probabilities: Tensor
    exclude_seen: bool
    profiles: UserProfiles
    simple: SimpleRanker | None = None

    @property
    def degraded(self) -> tuple[str, ...]:
        """Reasons why the answer is less than it could be."""
        return () if self.simple is None else (RANKER_FAILED,)

    def of(self, user: int) -> "Best":
        """Return the best of one user alone."""
        some = slice(user, user + 1)
        names = ("rows", "scores", "features", "sources", "counts", "propensities")
        own = {name: getattr(self, name)[some] for name in (*names, "probabilities")}
        return self._replace(profiles=self.profiles.of(user), **own)

    def columns(
        self,
    ) -> Iterator[tuple[list[int], list[float], list[int], list[float], list[float | None]]]:
        """Yield each user's columns without the padding.

        They are rows, scores, sources, propensities, and probabilities with None for NaN.
        """
        parts = (self.rows, self.scores, self.sources, self.propensities, self.probabilities)
        users = zip(*(part.tolist() for part in parts), self.counts.tolist(), strict=True)
        for rows, scores, sources, propensities, probabilities, n in users:
            known = [None if math.isnan(one) else one for one in probabilities[:n]]
            yield rows[:n], scores[:n], sources[:n], propensities[:n], known

    def table(self, users: Ints, item_ids: Sequence[str]) -> pl.DataFrame:
        """Return the results as rows of ``RESULTS``.

        Args:
            users: Number of each user (B,).
            item_ids: Item ids in row order.
        """
        ranks = np.broadcast_to(np.arange(1, self.rows.shape[1] + 1), self.rows.shape)
        kept = ranks <= self.counts[:, None].cpu().numpy()
        rows = self.rows.cpu().numpy()[kept]
        columns = {
            "user": np.broadcast_to(users[:, None], self.rows.shape)[kept],
            "rank": ranks[kept],
            "item_id": [item_ids[row] for row in rows.tolist()],
            "score": self.scores.cpu().numpy()[kept].astype(np.float64),
            "source": np.array(SOURCES)[self.sources.cpu().numpy()[kept]].tolist(),
            "propensity": self.propensities.cpu().numpy()[kept].astype(np.float64),
            "probability": self.probabilities.cpu().numpy()[kept].astype(np.float64),
            "degraded": [" ".join(self.degraded) or None] * len(rows),
        }
        return pl.DataFrame(columns, schema=RESULTS).with_columns(
            pl.col("probability").fill_nan(None)
        )
