"""Where a network's weights come from when they are not random."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypeAlias

from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vision.errors import WeightsError

# What timm, torchvision and transformers raise when weights are neither on disk nor reachable;
# the hub's "not found" errors and urllib's are OSErrors.
UNREACHABLE = (OSError, HfHubHTTPError, HFValidationError, SafetensorError)

State: TypeAlias = Mapping[str, Tensor]

# Of the backbone's tensors in a folder that ``vision.checkpoint`` wrote.
TOWER_PREFIX = "backbone."


def find_local(pretrained: bool | str) -> Path | None:
    """Return the safetensors file that a path names, or None when it is a hub id or no name.

    Raises:
        WeightsError: If it can only be a path and there is no such file.
    """
    if isinstance(pretrained, bool):
        return None
    path = Path(pretrained).expanduser()
    file = path / "model.safetensors" if path.is_dir() else path
    if file.is_file():
        if file.suffix != ".safetensors":
            raise WeightsError(f"pretrained must be a .safetensors file, got {pretrained!r}")
        return file
    # A hub id is OWNER/NAME; anything else can only have been meant as a path.
    if path.is_absolute() or pretrained.startswith(".") or pretrained.count("/") != 1:
        raise WeightsError(
            f"pretrained {pretrained!r} is neither a .safetensors file, a folder with "
            "model.safetensors, nor a hub id OWNER/NAME"
        )
    return None


def load_local(network: nn.Module, file: Path, convert: Callable[[State], State]) -> None:
    """Load a file's weights as ``load_state`` does; of a tower's, those of its backbone.

    Raises:
        WeightsError: If the file is damaged or of another network.
    """
    try:
        state = load_file(file)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"weights in {file} cannot be read: {error}") from error
    of_backbone = {
        name.removeprefix(TOWER_PREFIX): value
        for name, value in state.items()
        if name.startswith(TOWER_PREFIX)
    }
    load_state(network, of_backbone or state, str(file), convert)


def load_state(
    network: nn.Module, state: State, source: str, convert: Callable[[State], State]
) -> None:
    """Load weights; those of a classifier, which the network no longer has, are left.

    Args:
        network: What they are loaded into.
        state: Tensors by name.
        source: Where they come from, for errors.
        convert: To this network's layout, such as position embeddings of another size.

    Raises:
        WeightsError: If they are of another network.
    """
    try:
        missing, _ = network.load_state_dict(convert(state), strict=False)
    # A library's conversion meets the names of another network with whatever they lead to.
    except (RuntimeError, ValueError, KeyError, AttributeError, AssertionError) as error:
        raise WeightsError(f"weights in {source} do not fit this network: {error}") from error
    refuse_missing(missing, source)


def refuse_missing(missing: Collection[str], source: str) -> None:
    """Raise unless every tensor of a network was among the weights.

    Raises:
        WeightsError: If any is missing; it would have kept its random values.
    """
    if missing:
        raise WeightsError(
            f"weights in {source} are of another network: {len(missing)} of its tensors are "
            f"missing, the first is {min(missing)!r}"
        )


def not_found(name: str, pretrained: bool | str) -> WeightsError:
    """Return the error that says how to get weights that are not on this machine."""
    what = repr(pretrained) if isinstance(pretrained, str) else "published weights"
    return WeightsError(
        f"{what} for backbone {name!r} are not on this machine and could not be downloaded; "
        "where there is a network run `hf download OWNER/NAME --local-dir DIR`, copy DIR here and "
        "set pretrained = 'DIR' (or backbone = 'transformers/DIR'), or train from scratch with "
        "pretrained = false and a timm backbone"
    )
