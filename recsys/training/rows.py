"""Batches of row numbers, and arrays on the training device to look the rows up in."""

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
        draw: Function that returns the rows of one epoch, the same number in each.
        size: Number of rows in one epoch.
        seed: Random seed of the run.
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
        # A generator draws late: Lightning asks for the iterator before it sets a resumed epoch.
        yield from self._draw(np.random.default_rng([self._seed, self._epoch])).tolist()


class _AnyRow(Dataset[int]):
    """A data set whose samples are the row numbers themselves; modules look the rows up."""

    def __getitem__(self, row: int) -> int:
        return row


def row_batches(
    sampler: Sampler[int] | range, batch_size: int, *, drop_last: bool = False
) -> DataLoader[int]:
    """Return batches of rows, int64 (B,).

    Args:
        sampler: Rows of one epoch, in order.
        batch_size: Number of rows in a batch.
        drop_last: Whether to leave out a last batch that is not full; a single batch is kept.
    """
    return DataLoader(
        _AnyRow(),
        batch_size=min(batch_size, len(sampler)),  # type: ignore[arg-type]
        sampler=sampler,
        drop_last=drop_last,
        collate_fn=torch.tensor,
    )


class Columns(nn.Module):
    """Named arrays that move to the module's device and are left out of its checkpoints.

    Args:
        columns: Arrays by name.
    """

    def __init__(self, columns: Mapping[str, NDArray[Any]]) -> None:
        super().__init__()
        self._names = tuple(columns)
        for i, values in enumerate(columns.values()):
            # torch shares the memory and wants it writable, even if nothing writes to it.
            shared = torch.from_numpy(np.require(values, requirements=["C", "W"]))
            self.register_buffer(f"column_{i}", shared, persistent=False)

    def all(self) -> dict[str, Tensor]:
        """Return all columns by name."""
        return dict(zip(self._names, self.buffers(), strict=True))

    def at(self, rows: Tensor) -> dict[str, Tensor]:
        """Return the values of all columns at these rows (B,), by name."""
        return {name: values[rows] for name, values in self.all().items()}
