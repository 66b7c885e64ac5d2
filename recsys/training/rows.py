"""Batches of row numbers, and the arrays whose rows they are."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from recsys.data.arrays import Ints


class EpochSampler(Sampler[int]):
    """Rows in an order that depends only on seed and epoch, so that a resumed run repeats it.

    Args:
        draw: Returns the rows of one epoch, always the same number.
        size: That number.
        seed: Of every draw.
    """

    def __init__(
        self, draw: Callable[[np.random.Generator], Ints], size: int, *, seed: int
    ) -> None:
        self._draw, self._size, self._seed = draw, size, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each one."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[int]:
        # A generator function: Lightning asks for the iterator before it sets a resumed epoch.
        yield from self._draw(np.random.default_rng([self._seed, self._epoch])).tolist()


class _AnyRow(Dataset[int]):
    """Every row is its own sample; modules look rows up in tensors they hold on the device."""

    def __getitem__(self, row: int) -> int:
        return row


def row_batches(
    sampler: Sampler[int] | range, batch_size: int, *, drop_last: bool = False
) -> DataLoader[int]:
    """Return batches of rows, int64 (B,).

    Args:
        sampler: The rows of one epoch, in order.
        batch_size: Rows per batch.
        drop_last: Leave out a last batch that is not full, unless it is the only one.
    """
    return DataLoader(
        _AnyRow(),
        batch_size=min(batch_size, len(sampler)),  # type: ignore[arg-type]
        sampler=sampler,
        drop_last=drop_last,
        collate_fn=torch.tensor,
    )


class Columns(nn.Module):
    """Arrays by name that follow the module's device and are no part of its checkpoints."""

    def __init__(self, columns: Mapping[str, NDArray[Any]]) -> None:
        super().__init__()
        self._names = tuple(columns)
        for i, values in enumerate(columns.values()):
            # torch shares the memory, and wants it writable even where nothing writes.
            shared = torch.from_numpy(np.require(values, requirements=["C", "W"]))
            self.register_buffer(f"column_{i}", shared, persistent=False)

    def all(self) -> dict[str, Tensor]:
        """Return every column."""
        return dict(zip(self._names, self.buffers(), strict=True))

    def at(self, rows: Tensor) -> dict[str, Tensor]:
        """Return every column at the rows (B,)."""
        return {name: values[rows] for name, values in self.all().items()}
