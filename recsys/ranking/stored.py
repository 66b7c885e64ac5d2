"""How rankers and statistics are written and read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import nn

from recsys.errors import BundleError, InvalidArgumentError
from recsys.models.ranker import Ranker as Network
from recsys.models.ranker import RankerSpec
from recsys.models.trees import TreeRanker
from recsys.models.user_encoder import UserEncoder
from recsys.ranking.calibration import Calibration, Calibrations
from recsys.ranking.features import FEATURES
from recsys.ranking.rankers import BLEND, NETWORK, SIMPLE, TREES, Blend, Ranker, SimpleRanker
from recsys.ranking.scoring import UserRanker
from recsys.ranking.statistics import Statistics
from recsys.ranking.tempo import Tempo

ENCODER_FILE = "user_encoder.safetensors"
_NUMBERS = "numbers"
TREES_FILE, NETWORK_FILE = "ranker_trees.txt", "ranker.safetensors"


def describe_rankers(user_ranker: UserRanker) -> dict[str, Any]:
    """Return as JSON values how the rankers of both scopes are built.

    Raises:
        InvalidArgumentError: If they are two models of one kind; a bundle has a file for one.
    """
    both = (user_ranker.ranker, user_ranker.discovery)
    _check_shared(both)
    found: dict[str, Any] = {"all": _name(both[0]), "new": _name(both[1])}
    for one in both:
        if isinstance(one, Blend):
            found["blend"] = {_name(part): weight for part, weight in _parts(one)}
        for part, _ in _parts(one):
            if isinstance(part, Network):
                found["network"] = part.spec._asdict()
    scopes = user_ranker.calibrations._asdict().items()
    calibrated = {scope: one.to_json() for scope, one in scopes if one is not None}
    return found | ({"probability": calibrated} if calibrated else {})


def save_user_ranker(user_ranker: UserRanker, folder: Path) -> None:
    """Write the weights of the user encoder and of the rankers into a folder."""
    _save_weights(user_ranker.encoder, folder / ENCODER_FILE)
    parts = [*_parts(user_ranker.ranker), *_parts(user_ranker.discovery)]
    for part in {id(part): part for part, _ in parts}.values():
        if isinstance(part, TreeRanker):
            part.save(folder / TREES_FILE)
        elif isinstance(part, Network):
            _save_weights(part, folder / NETWORK_FILE)


def load_user_ranker(
    encoder: UserEncoder, described: Mapping[str, Any], folder: Path
) -> UserRanker:
    """Return what ``save_user_ranker`` wrote into a folder.

    Args:
        encoder: A user encoder of the right size, whose weights are replaced.
        described: Result of ``describe_rankers``.
        folder: Folder with the weights.

    Raises:
        BundleError: If the trees cannot be read, or this release has no such ranker.
    """
    encoder.load_state_dict(load_file(folder / ENCODER_FILE))
    # Bundles of earlier releases have no probabilities.
    stored = described.get("probability", {}).items()
    calibrations = Calibrations(**{scope: Calibration.from_json(one) for scope, one in stored})
    return UserRanker(encoder, *load_rankers(described, folder), calibrations)


def _save_weights(module: nn.Module, path: Path) -> None:
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, path)


def load_rankers(described: Mapping[str, Any], folder: Path) -> tuple[Ranker, Ranker]:
    """Return the rankers of the whole catalogue and of new items.

    Args:
        described: Result of ``describe_rankers``.
        folder: Folder that ``save_user_ranker`` wrote to.

    Raises:
        BundleError: If the trees cannot be read, or this release has no such ranker.
    """
    loaded: dict[str, Ranker] = {}
    for name in [*described.get("blend", ()), described["all"], described["new"]]:
        if name not in loaded:
            loaded[name] = _load(name, described, folder, loaded)
    return loaded[described["all"]], loaded[described["new"]]


def save_statistics(statistics: Statistics, path: Path) -> None:
    """Write statistics into a safetensors file, the moment and the tempo as its metadata."""
    arrays = {
        one.name: np.ascontiguousarray(getattr(statistics, one.name))
        for one in fields(statistics)
        if one.name not in ("as_of_us", "tempo")
    }
    numbers = {"as_of_us": statistics.as_of_us, "tempo": statistics.tempo._asdict()}
    # One text, for the order of several is random, and equal bundles must be equal files.
    save_arrays(arrays, path, {_NUMBERS: json.dumps(numbers)})


def load_statistics(path: Path) -> Statistics:
    """Return the statistics in a file that ``save_statistics`` wrote.

    Raises:
        BundleError: If it is of an earlier release, which wrote the moment elsewhere.
    """
    with safe_open(path, "np") as opened:
        metadata = opened.metadata() or {}
    if _NUMBERS not in metadata:
        raise BundleError(f"{path} must hold the moment of its statistics, got none; train again")
    numbers = json.loads(metadata[_NUMBERS])
    tempo = Tempo(**numbers["tempo"])
    arrays = load_arrays(path)
    # Earlier releases wrote the neighbours by EASE of every item.
    arrays.setdefault("ease_item_rows", np.arange(len(arrays["ease_rows"]), dtype=np.int32))
    return Statistics(as_of_us=numbers["as_of_us"], tempo=tempo, **arrays)


def _load(
    name: str, described: Mapping[str, Any], folder: Path, loaded: Mapping[str, Ranker]
) -> Ranker:
    """Return a ranker; a blend shares its parts, which are loaded, with the other scope."""
    if name == BLEND:
        parts = [loaded[part] for part in described["blend"]]
        return Blend(parts, list(described["blend"].values()))
    if name == TREES:
        return TreeRanker.load(folder / TREES_FILE)
    if name == NETWORK:
        spec = {field: described["network"][field] for field in RankerSpec._fields}
        network = Network(len(FEATURES), **spec)
        network.load_state_dict(load_file(folder / NETWORK_FILE))
        return network.eval()
    if name not in SIMPLE:
        known = [*SIMPLE, NETWORK, TREES, BLEND]
        raise BundleError(
            f"bundle {folder} ranks by {name!r}, this release by one of {known}; train again"
        )
    return SimpleRanker(name)


def _parts(ranker: Ranker) -> list[tuple[Ranker, float]]:
    """Return the rankers of a blend with their weights, or the ranker itself with 1."""
    if isinstance(ranker, Blend):
        return list(zip(ranker.rankers, ranker.weights, strict=True))
    return [(ranker, 1.0)]


def _check_shared(rankers: Sequence[Ranker]) -> None:
    """Raise if the rankers have two models of one kind, for there is a file for one."""
    each = [part for one in rankers for part in (one, *(part for part, _ in _parts(one)))]
    for name in (TREES, NETWORK, BLEND):
        models = {id(one) for one in each if _name(one) == name}
        if len(models) > 1:
            raise InvalidArgumentError(
                f"ranker and discovery must share one model of kind {name!r}, got {len(models)}; "
                "pass the same object for both, or discovery=None"
            )


def _name(ranker: Ranker) -> str:
    if isinstance(ranker, SimpleRanker):
        return ranker.name
    if isinstance(ranker, Blend):
        return BLEND
    return TREES if isinstance(ranker, TreeRanker) else NETWORK
