"""One setting of a search: what it trains, and how that ranks in the last window."""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.config import TrainConfig
from recsys.errors import DataError, TrainingError
from recsys.ranking.features import FEATURES
from recsys.training.inputs import Material
from recsys.training.known import KnownItems
from recsys.training.rankers import Compared, compare_rankers, take_snapshots
from recsys.training.ranking import LEAST_STEPS
from recsys.training.selection import SCOPES, Scope
from recsys.training.stack import fit_first_encoder, fuse_items
from recsys.training.stages import CHECKPOINTS, Runtime

logger = logging.getLogger(__name__)

TRIAL, RECORD = "trial", "trial.json"  # name of the stage, and the file in its folder


class Trial(NamedTuple):
    """One setting, and how it ranks in the last window before the split.

    Args:
        values: Value of each searched field, by dotted name.
        users: Part of each asked user in the NDCG@10 (n,), which is their mean; None if the setting
            could not be trained.
        stages: Names of the folders of its networks.
    """

    values: Mapping[str, Any]
    users: NDArray[np.float64] | None
    stages: Sequence[str]

    @property
    def ndcg(self) -> float:
        """NDCG@10, averaged over the scopes; minus infinity if it could not be trained."""
        return -np.inf if self.users is None else float(self.users.mean())


def run_trial(
    material: Material,
    items: KnownItems,
    config: TrainConfig,
    runtime: Runtime,
    *,
    values: Mapping[str, Any],
) -> Trial:
    """Return how a setting ranks in the last window before the split: the stage "trial".

    Args:
        material: Training inputs of a shop with events.
        items: What the events said of the items.
        config: Settings to try.
        runtime: How to run the stages.
        values: Values of the searched fields in these settings.
    """
    scopes = [one for one in SCOPES if one in config.evaluation.scopes] or list(SCOPES)
    stage = runtime.workspace.run(
        TRIAL,
        {
            "material": material.key,
            "items": items.key,
            "seed": runtime.seed,
            "scopes": scopes,
            "features": FEATURES,
            "steps": LEAST_STEPS,
            "fusion": config.fusion.model_dump(exclude={"teacher"}),
            "teacher": material.shop.teacher.key,
            "users": config.users.model_dump(),
            "ranker": config.ranker.model_dump(),
        },
        lambda folder: _try(material, items, config, runtime, scopes, folder),
    )
    record = json.loads((stage.folder / RECORD).read_text())
    users = None if record["users"] is None else np.array(record["users"])
    return Trial(values, users, record["stages"])


def _try(
    material: Material,
    items: KnownItems,
    config: TrainConfig,
    runtime: Runtime,
    scopes: Sequence[Scope],
    folder: Path,
) -> None:
    """Write what a setting ranks like into the folder of its stage."""
    before = len(runtime.workspace.stages)
    users = None
    try:
        compared = _compare(material, items, config, runtime, folder)
        users = user_parts(compared, scopes).tolist()
    except TrainingError as error:
        logger.warning("a trial cannot be trained: %s", error)
    stages = [one.folder.name for one in runtime.workspace.stages[before:]]
    (folder / RECORD).write_text(json.dumps({"users": users, "stages": stages}))
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def _compare(
    material: Material, items: KnownItems, config: TrainConfig, runtime: Runtime, folder: Path
) -> Compared:
    """Return how the rankers of these settings do in the last window before the split."""
    behaviour = material.shop.behaviour
    assert behaviour is not None, "check_tuning refuses a shop without events"
    fused = fuse_items(material, config.fusion, runtime)
    encoder = fit_first_encoder(behaviour, fused, config.users, runtime).to(runtime.device)
    windows = take_snapshots(behaviour, fused.embeddings, items, device=runtime.device)
    n_windows = len(behaviour.cuts_us) - 1
    return compare_rankers(windows, n_windows, encoder, config.ranker, folder, runtime)


def user_parts(compared: Compared, scopes: Sequence[Scope]) -> NDArray[np.float64]:
    """Return the part of each asked user in the NDCG@10 of what was chosen (n,).

    The mean of the parts is the mean over the scopes of the mean NDCG@10 of the users who are asked
    in the scope. A scope that asks nobody is left out.

    Args:
        compared: Results of the rankers.
        scopes: Scopes to average over.

    Raises:
        DataError: If no scope asks anybody.
    """
    parts = []
    for scope in scopes:
        by_name = compared.results[scope]
        asked = ~np.isnan(next(iter(by_name.values())))
        if asked.any():
            values = by_name[getattr(compared.choice, scope)]
            parts.append(np.where(asked, values, 0.0) / asked.mean())
    if not parts:
        raise DataError(
            "tune needs users who have a history and take something in the last window before the "
            f"split, in the scope {' or '.join(scopes)}, got none; set a longer [split] horizon or "
            "other [evaluation] scopes, or train without tune"
        )
    found: NDArray[np.float64] = np.mean(parts, axis=0)
    return found
