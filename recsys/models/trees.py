"""LambdaMART: gradient-boosted trees that rank candidates by their features."""

import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from recsys.config import TreesConfig
from recsys.data.arrays import Floats, Ints
from recsys.errors import BundleError, InvalidArgumentError

if TYPE_CHECKING:
    import lightgbm

_LAST_TREE = "\nend of trees\n"
_THREADS = re.compile(r"\[num_threads: \d+\]")


class TreeQueries(NamedTuple):
    """Candidates of many queries, one query after the other.

    Args:
        features: Features of the candidates, float32 (n, F).
        relevance: 1 for an answer, 0 for another candidate (n,).
        counts: Number of candidates of each query, int64 (Q,).
    """

    features: Floats
    relevance: Floats
    counts: Ints


class TreeRanker:
    """A LambdaMART model (Burges, 2010, "From RankNet to LambdaRank to LambdaMART").

    Args:
        booster: Trained LightGBM model.
        threads: Number of threads of a prediction; 0 is LightGBM's default.
    """

    def __init__(self, booster: "lightgbm.Booster", *, threads: int = 1) -> None:
        self._booster = booster
        self._threads = threads

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the model in a text file that ``save`` wrote.

        Raises:
            BundleError: If the file is not such a model.
            ImportError: If LightGBM cannot run on this system.
        """
        engine = _import_lightgbm()
        try:
            model = path.read_text("utf-8")
            # LightGBM ends the process on a text that was cut off, so it never sees one.
            if not (model.startswith("tree\n") and _LAST_TREE in model):
                raise ValueError("it begins or ends in another way")
            return cls(engine.Booster(model_str=model))
        except (ValueError, engine.basic.LightGBMError) as error:
            raise BundleError(
                f"{path} must be a LightGBM model as text ({error}); copy the bundle again or "
                "train again"
            ) from error

    def save(self, path: Path) -> None:
        """Write the model as text, which executes nothing when it is read.

        The number of threads of the training is left out, so that equal models are equal files.
        """
        model = self._booster.model_to_string(num_iteration=-1)
        path.write_text(_THREADS.sub("[num_threads: 0]", model), "utf-8")

    def to(self, device: str) -> Self:
        """Return this model; trees stay on the processor."""
        return self

    def __call__(self, features: Tensor) -> Tensor:
        """Return scores (...) for features (..., F)."""
        scores = self._predict(features)
        return torch.from_numpy(scores).to(features.device).view(features.shape[:-1])

    def contributions(self, features: Tensor) -> Tensor:
        """Return what each feature (C, F) adds to each score, (C, F).

        These are SHAP values of the trees (Lundberg et al., 2020,
        https://doi.org/10.1038/s42256-019-0138-9). With their expectation they add up to the score.
        """
        values = self._predict(features, pred_contrib=True)
        found = values[:, :-1]  # the last column is the expectation
        return torch.from_numpy(np.ascontiguousarray(found)).to(features.device)

    def importance(self) -> dict[str, float]:
        """Return the share of each feature in what all splits gained, largest first."""
        gains = self._booster.feature_importance("gain")
        shares = gains / max(float(gains.sum()), 1e-12)
        order = np.argsort(-shares, kind="stable")
        names = self._booster.feature_name()
        return {names[position]: float(shares[position]) for position in order}

    def _predict(self, features: Tensor, *, pred_contrib: bool = False) -> Floats:
        """Return LightGBM's prediction for all candidates, in one array."""
        n_features = self._booster.num_feature()
        if features.shape[-1] != n_features:
            raise InvalidArgumentError(
                f"features must have {n_features} columns, got {tuple(features.shape)}"
            )
        rows = features.reshape(-1, n_features).float().cpu().numpy()
        if not len(rows):  # LightGBM divides by their number
            return np.zeros((0, n_features + 1) if pred_contrib else 0, dtype=np.float32)
        found = self._booster.predict(rows, num_threads=self._threads, pred_contrib=pred_contrib)
        return np.asarray(found, dtype=np.float32)


def train_trees(
    queries: TreeQueries,
    config: TreesConfig,
    feature_names: Sequence[str],
    *,
    seed: int,
    threads: int = 0,
) -> TreeRanker:
    """Return a model that was trained to rank the answers of each query first.

    The same input gives the same model, whatever the number of threads.

    Args:
        queries: Candidates with their relevance.
        config: Number and size of the trees.
        feature_names: Names of the F features.
        seed: Random seed.
        threads: Number of threads; 0 is one per core.

    Raises:
        ImportError: If LightGBM cannot run on this system.
    """
    engine = _import_lightgbm()
    data = engine.Dataset(
        queries.features,
        queries.relevance,
        group=queries.counts,
        feature_name=list(feature_names),
        free_raw_data=True,
    )
    options = {
        "objective": "lambdarank",
        "lambdarank_truncation_level": config.truncation,
        "learning_rate": config.learning_rate,
        "num_leaves": config.leaves,
        "min_data_in_leaf": config.min_candidates,
        "feature_fraction": config.feature_share,
        "num_threads": threads,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }
    return TreeRanker(engine.train(options, data, num_boost_round=config.trees))


def _import_lightgbm() -> ModuleType:
    """Return the module, which needs a system library that slim images leave out."""
    try:
        import lightgbm
    except OSError as error:
        raise ImportError(
            f"trees need LightGBM, and it needs the OpenMP library of the system ({error}); "
            "install it, such as with: apt-get install libgomp1"
        ) from error
    return lightgbm
