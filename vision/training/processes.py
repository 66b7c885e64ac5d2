"""Several processes that train one tower together, started by ``torchrun``.

A batch is divided among them row by row. Its features are then gathered, so that losses see the
whole batch and the result is the same as with one process.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
import torch.distributed
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Sampler

from vision.errors import InvalidArgumentError

Rows = TypeVar("Rows", Tensor, list[int])


class Shard(NamedTuple):
    """A process's rows of a shared batch: every ``world_size``-th, starting at its rank."""

    rank: int
    world_size: int

    def of(self, rows: Rows) -> Rows:
        """Return the rows that belong to this process."""
        return rows[self.rank :: self.world_size]


WHOLE = Shard(0, 1)


class Order(Protocol):
    """Rows in an order that changes with the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[int]: ...


def current_shard() -> Shard:
    """Return this process's shard among those that ``torchrun`` started, else WHOLE."""
    if not TorchElasticEnvironment.detect():
        return WHOLE
    environment = TorchElasticEnvironment()
    return Shard(environment.global_rank(), environment.world_size())


def processes_here() -> int:
    """Return the number of processes that ``torchrun`` started on this machine, else 1."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if TorchElasticEnvironment.detect() else 1


@contextlib.contextmanager
def shared_norms(network: nn.Module, shard: Shard, device: torch.device) -> Iterator[None]:
    """Let the batch norms of a network see the rows of all processes, on CUDA cards.

    torch cannot do this on processors, where every process normalises its own rows. The names of
    weights and statistics stay the same, and so do the weight tensors, which an optimiser may hold.

    Args:
        network: Network to train; afterwards it has its own norms again, with what they learned.
        shard: Place of this process among those that train together.
        device: Device that the network is trained on.
    """
    if shard.world_size == 1 or device.type != "cuda":
        yield
        return
    # The same norm may have two names.
    modules = network.named_modules(remove_duplicate=False)
    own = {name: module for name, module in modules if isinstance(module, _BatchNorm)}
    # Lightning converts as torch does, which would drop the activations in timm's norms.
    convert: Any = convert_sync_batchnorm
    convert(network)
    try:
        yield
    finally:
        for name, norm in own.items():
            _take_over(norm, network.get_submodule(name))
            network.set_submodule(name, norm)


def _take_over(norm: nn.Module, other: nn.Module) -> None:
    """Give a norm the weights, statistics and mode of another."""
    # The two no longer share their statistics once a module was moved to a device.
    named = (*other.named_parameters(recurse=False), *other.named_buffers(recurse=False))
    for name, value in named:
        setattr(norm, name, value)
    norm.training = other.training


class ShardedOrder(Sampler[int]):
    """This process's rows of every batch of an order that all processes share.

    A last batch that is not full is left out, because all processes must take the same number of
    steps.

    Args:
        order: Order that all processes share.
        batch_size: Number of rows in one step of all processes; a multiple of their number.
        shard: Place of this process among those that train together.

    Raises:
        InvalidArgumentError: If the processes cannot share the batch evenly, or the order has fewer
            rows than one batch.
    """

    def __init__(self, order: Order, *, batch_size: int, shard: Shard) -> None:
        if batch_size % shard.world_size:
            raise InvalidArgumentError(
                f"batch_size must be a multiple of the {shard.world_size} processes, "
                f"got {batch_size}"
            )
        if len(order) < batch_size:
            raise InvalidArgumentError(
                f"batch_size must be at most the {len(order)} pictures where {shard.world_size} "
                f"processes share them, got {batch_size}"
            )
        self.order, self.batch_size, self.shard = order, batch_size, shard

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this."""
        self.order.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.order) // self.batch_size * self.batch_size // self.shard.world_size

    def __iter__(self) -> Iterator[int]:
        rows = list(self.order)
        for start in range(0, len(rows) - self.batch_size + 1, self.batch_size):
            yield from rows[start : start + self.batch_size][
                self.shard.rank :: self.shard.world_size
            ]


def gather(values: Tensor, shard: Shard) -> Tensor:
    """Return the rows of all processes (B, ...), in the order of the shared batch.

    Once DistributedDataParallel has averaged the gradients of the parameters over the processes,
    they equal those of a single process.

    Args:
        values: Rows of this process (B / world_size, ...).
        shard: Place of this process among those that train together.
    """
    if shard.world_size == 1:
        return values
    # Rank r has rows r, r + world_size, …; stacking along a second axis interleaves them.
    return torch.stack(all_gather(values.contiguous()), dim=1).flatten(0, 1)


def total(values: Tensor, shard: Shard) -> Tensor:
    """Return the sum of a tensor over all processes."""
    if shard.world_size > 1:
        torch.distributed.all_reduce(values)
    return values
