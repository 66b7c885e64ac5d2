"""Find a checkpoint by its folder or hub id."""

import re
from pathlib import Path

from huggingface_hub import snapshot_download

from text.errors import WeightsError

# Pickled weights, and copies for other frameworks, are never fetched.
_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def is_hub_id(name: str) -> bool:
    """Return whether a name is no folder here, and may be that of a model on the hub."""
    return not Path(name).is_dir() and _HUB_ID.fullmatch(name) is not None


def find_checkpoint(name: str) -> Path:
    """Return the local folder of a checkpoint, which is fetched from the hub if need be.

    Args:
        name: Folder, or hub id such as ``sentence-transformers/all-MiniLM-L6-v2``.

    Raises:
        WeightsError: If the name is not a folder, and neither the local cache nor the hub has it.
    """
    if Path(name).is_dir():
        return Path(name)
    if not is_hub_id(name):
        raise WeightsError(f"checkpoint must be an existing folder or a hub id, got {name!r}")
    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    # The hub's client raises OSError for no network, offline mode, an unknown id, and not cached.
    except OSError as error:
        raise WeightsError(
            f"checkpoint {name!r} is not a folder, is not in the local hub cache, and could not be "
            f"fetched; run `hf download {name}` on a machine with network and copy its folder, or "
            f"unset checkpoint to build an encoder from the catalogue ({error})"
        ) from error
