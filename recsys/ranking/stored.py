"""How rankers are written and read: trees, network, blend, or one simple feature."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from recsys.errors import BundleError, InvalidArgumentError
from recsys.models.ranker import Ranker as Network
from recsys.models.ranker import RankerSpec
from recsys.models.trees import TreeRanker
from recsys.ranking.features import FEATURES
from recsys.ranking.rankers import BLEND, NETWORK, SIMPLE, TREES, Blend, Ranker, SimpleRanker

TREES_FILE, NETWORK_FILE = "ranker_trees.txt", "ranker.safetensors"


def describe_rankers(ranker: Ranker, discovery: Ranker | None) -> dict[str, Any]:
    """Return as JSON values how the rankers of both scopes are built.

    Raises:
        InvalidArgumentError: If they are two models of one kind; a bundle has a file for one.
    """
    found: dict[str, Any] = {"all": _name(ranker), "new": _name(discovery or ranker)}
    both = (ranker, discovery or ranker)
    _check_shared(both)
    for one in both:
        if isinstance(one, Blend):
            found["blend"] = {_name(part): weight for part, weight in _parts(one)}
        for part, _ in _parts(one):
            if isinstance(part, Network):
                found["network"] = part.spec._asdict()
    return found


def save_ranker(ranker: Ranker, folder: Path) -> None:
    """Write the weights of a ranker into a folder, if it has any."""
    for part, _ in _parts(ranker):
        if isinstance(part, TreeRanker):
            part.save(folder / TREES_FILE)
        elif isinstance(part, Network):
            weights = {name: value.contiguous() for name, value in part.state_dict().items()}
            save_file(weights, folder / NETWORK_FILE)


def load_rankers(described: Mapping[str, Any], folder: Path) -> tuple[Ranker, Ranker]:
    """Return the rankers of the whole catalogue and of new items.

    Args:
        described: Result of ``describe_rankers``.
        folder: Folder that ``save_ranker`` wrote to.

    Raises:
        BundleError: If the trees cannot be read, or this release has no such ranker.
    """
    loaded: dict[str, Ranker] = {}
    for name in [*described.get("blend", ()), described["all"], described["new"]]:
        if name not in loaded:
            loaded[name] = _load(name, described, folder, loaded)
    return loaded[described["all"]], loaded[described["new"]]


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
