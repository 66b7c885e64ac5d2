"""A table of embeddings on the device, which keeps those that are asked for most."""

import hashlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.arrays import Bools, Ints
from recsys.errors import ConfigError, InvalidArgumentError

Keys = NDArray[np.uint64]  # two words for each key (B, 2), from hash_keys
Stored = Literal["float32", "float16", "int8"]

WAYS = 16  # rows of a set: those that a key may be in
_TYPES = {"float32": torch.float32, "float16": torch.float16, "int8": torch.int8}
_LARGEST = 127  # of int8
_MOST = 255  # uses that are counted
_LOOKUPS_OF_ROW = 10  # lookups for each row of the table after which all counts are halved


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


def hash_keys(keys: Sequence[str]) -> Keys:
    """Return 128 bits for each key (B, 2): too many for two keys ever to share them."""
    digests = (hashlib.blake2b(key.encode(), digest_size=16).digest() for key in keys)
    return np.frombuffer(b"".join(digests), dtype=np.uint64).reshape(-1, 2)


class Found(NamedTuple):
    """What a lookup found.

    Args:
        rows: Embeddings, float32 (B, D) on the device; zeros where there is none.
        there: Which keys were there, bool (B,).
    """

    rows: Tensor
    there: Bools


class DeviceTable:
    """Keeps embeddings under keys, within a number of bytes; a batch is looked up at once.

    A key may be in the ``WAYS`` rows of one set, which its hash names, so that a lookup compares it
    with those alone. The words of the keys are in the memory of the processor, and the embeddings
    are on the device and stay there.

    In a full set a new row takes the place of the one that is used least, and only if it was
    asked for more often itself, so a pass over many rows that are read once empties nothing. Uses
    are counted as by TinyLFU (Einziger et al., 2017, https://arxiv.org/abs/1512.00727): those of
    rows that are not there in a sketch, and all counts are halved from time to time.

    Args:
        max_bytes: Memory for rows; less than one row keeps nothing.
        dim: Embedding size D.
        device: Torch device.
        stored: Type of the values. A row of int8 has a scale of its own.

    Raises:
        ConfigError: If the device does not have that much memory.
    """

    def __init__(
        self, *, max_bytes: int, dim: int, device: str, stored: Stored = "float32"
    ) -> None:
        self.device = device
        self.row_bytes = dim * _TYPES[stored].itemsize + (4 if stored == "int8" else 0)
        capacity = max_bytes // self.row_bytes
        self._ways = min(WAYS, capacity)
        self._n_sets = capacity // self._ways if capacity else 0
        self.capacity = size = self._n_sets * self._ways
        # Uninitialised, so on the CPU memory is taken only as rows are written.
        try:
            self._rows = torch.empty(size + 1, dim, dtype=_TYPES[stored], device=device)
        except RuntimeError as error:
            raise ConfigError(
                f"device_table_bytes must fit into the memory of {device}, got {max_bytes}"
            ) from error
        self._rows[size] = 0  # for keys that are not there
        self._scales = torch.ones(size + 1 if stored == "int8" else 0, 1, device=device)
        # The two words of the key of each row; 0 in the first is an empty row.
        self._first, self._second = (np.zeros(size, dtype=np.uint64) for _ in range(2))
        self._uses = np.zeros(size, dtype=np.uint8)
        self._sketch = np.zeros((2, max(1, 8 * size)), dtype=np.uint8)
        self._lookups = 0

    def __len__(self) -> int:
        return int(np.count_nonzero(self._first))

    def get(self, keys: Keys) -> Found:
        """Return the embeddings of keys (B,), and count their use."""
        if not self.capacity:
            return Found(self._rows.new_zeros((len(keys), self._rows.shape[1])).float(), _no(keys))
        slots, there = self._find(keys)
        self._count(keys, slots, there)
        at = torch.from_numpy(np.where(there, slots, self.capacity)).to(self._rows.device)
        rows = self._rows.index_select(0, at).float()
        if len(self._scales):
            rows *= self._scales.index_select(0, at)
        return Found(rows, there)

    def put(self, keys: Keys, embeddings: Tensor) -> Bools:
        """Keep embeddings (B, D) under keys, and return which of them are kept (B,).

        A key that is there gets the new embedding; of one that is given twice, the last is taken.

        Raises:
            InvalidArgumentError: If the embeddings have another shape.
        """
        wanted = (len(keys), self._rows.shape[1])
        if embeddings.shape != wanted:
            raise InvalidArgumentError(
                f"embeddings must have shape {wanted}, got {tuple(embeddings.shape)}"
            )
        if not self.capacity:
            return _no(keys)
        last = len(keys) - 1 - np.unique(keys[::-1], axis=0, return_index=True)[1]
        asked, embeddings = keys[last], embeddings[torch.from_numpy(last).to(embeddings.device)]
        waiting = asked[~self._find(asked)[1]]
        while len(waiting):
            # One of each set at a time, since the next one competes with it.
            first = np.unique(self._sets(waiting), return_index=True)[1]
            self._admit(waiting[first])
            waiting = np.delete(waiting, first, axis=0)
        # Only now, as a row may have been given away again meanwhile.
        slots, there = self._find(asked)
        self._write(slots[there], embeddings[torch.from_numpy(there).to(embeddings.device)])
        return self._find(keys)[1]

    def _sets(self, keys: Keys) -> Ints:
        """Return the set of each key (B,)."""
        return (keys[:, 1] % np.uint64(self._n_sets)).astype(np.int64)

    def _find(self, keys: Keys) -> tuple[Ints, Bools]:
        """Return the row of each key, or one of its set, and whether the key is there (B,)."""
        first, sets = keys[:, 0] | np.uint64(1), self._sets(keys)
        words = self._first.reshape(self._n_sets, self._ways)[sets]  # (B, WAYS)
        slots = sets * self._ways + (words == first[:, None]).argmax(axis=1)
        there: Bools = (self._first[slots] == first) & (self._second[slots] == keys[:, 1])
        return slots, there

    def _count(self, keys: Keys, slots: Ints, there: Bools) -> None:
        """Count a use of each key, and halve all counts where it is time."""
        used = slots[there]
        self._uses[used] = np.minimum(self._uses[used], _MOST - 1) + 1
        for counts, places in zip(self._sketch, self._places(keys[~there]), strict=True):
            counts[places] = np.minimum(counts[places], _MOST - 1) + 1
        self._lookups += len(keys)
        if self._lookups >= _LOOKUPS_OF_ROW * self.capacity:
            self._lookups = 0
            self._uses >>= 1
            self._sketch >>= 1

    def _places(self, keys: Keys) -> Ints:
        """Return the two places of each key in the sketch (2, B)."""
        size, half = np.uint64(self._sketch.shape[1]), np.uint64(32)
        places = [keys[:, 0] % size, (keys[:, 0] >> half ^ keys[:, 1]) % size]
        return np.stack(places).astype(np.int64)

    def _admit(self, keys: Keys) -> None:
        """Give each of some keys, all of different sets, a row if it is worth more than one."""
        starts = self._sets(keys) * self._ways
        rows = starts[:, None] + np.arange(self._ways)
        worth = self._uses[rows] + (self._first[rows] != 0).astype(np.int64)  # empty: the least
        slots = starts + worth.argmin(axis=1)
        asked = np.take_along_axis(self._sketch, self._places(keys), axis=1).min(axis=0)
        better = (self._first[slots] == 0) | (asked > self._uses[slots])
        taken, keys = slots[better], keys[better]
        self._first[taken], self._second[taken] = keys[:, 0] | np.uint64(1), keys[:, 1]
        self._uses[taken] = np.maximum(asked[better], 1)

    def _write(self, slots: Ints, embeddings: Tensor) -> None:
        at = torch.from_numpy(slots).to(self._rows.device)
        rows = embeddings.to(self._rows.device, torch.float32)
        if len(self._scales):
            scales = rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / _LARGEST
            self._scales[at] = scales
            rows = (rows / scales).round()
        self._rows[at] = rows.to(self._rows.dtype)


def _no(keys: Keys) -> Bools:
    return np.zeros(len(keys), dtype=np.bool_)
