"""A table of recent embeddings on the device."""

from collections import OrderedDict

import torch

from recsys.data.arrays import Floats
from recsys.errors import ConfigError


def check_device(device: str) -> None:
    """Raise unless torch can compute on a device and read the result.

    Raises:
        ConfigError: If it cannot; the message has what torch says.
    """
    try:
        torch.zeros(1, device=device).cpu()
    # The latter two where torch was built without it, or needs a package for it.
    except (RuntimeError, AssertionError, ImportError) as error:
        said = str(error).partition("\n")[0]
        raise ConfigError(
            f"device must be one that torch can use here, such as cpu or cuda, got {device!r}: "
            f"{said}"
        ) from error


class DeviceTable:
    """Keeps the most recently used embeddings, within a number of bytes.

    The catalogue that is ranked lies on the device as a whole, inside the recommender. This table
    holds embeddings of queries, and of items that are being added to the catalogue.

    Args:
        max_bytes: Memory for rows; less than one row keeps nothing.
        dim: Embedding size D.
        device: Torch device.

    Raises:
        ConfigError: If the device does not have that much memory.
    """

    def __init__(self, *, max_bytes: int, dim: int, device: str) -> None:
        self._capacity = max_bytes // (4 * dim)
        # Uninitialised, so on the CPU memory is taken only as rows are written.
        try:
            self._rows = torch.empty(self._capacity, dim, dtype=torch.float32, device=device)
        except RuntimeError as error:
            raise ConfigError(
                f"device_table_bytes must fit into the memory of {device}, got {max_bytes}"
            ) from error
        self._slots: OrderedDict[str, int] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        return len(self._slots)

    def get(self, key: str) -> Floats | None:
        """Return the embedding (D,) under a key, or None."""
        slot = self._slots.get(key)
        if slot is None:
            return None
        self._slots.move_to_end(key)
        return self._rows[slot].cpu().numpy().copy()

    def put(self, key: str, embedding: Floats) -> None:
        """Keep an embedding (D,); in a full table it replaces the least recently used one."""
        if self._capacity == 0:
            return
        slot = self._slots.pop(key, None)
        if slot is None and len(self._slots) < self._capacity:
            slot = len(self._slots)
        if slot is None:
            _, slot = self._slots.popitem(last=False)
        self._rows[slot] = torch.from_numpy(embedding)
        self._slots[key] = slot
