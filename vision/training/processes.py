"""Several processes that train one tower: who they are, which rows are theirs, how they share.

The processes are started by ``torchrun``. A batch is divided among them, row by row, and its
features are gathered, so that losses see the whole batch and the result is that of one process.
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
    """Which rows of a shared batch belong to a process: every ``world_size``-th from its rank."""

    rank: int
    world_size: int

    def of(self, rows: Rows) -> Rows:
        """Return this process's rows of a shared batch's."""
        return rows[self.rank :: self.world_size]


WHOLE = Shard(0, 1)


class Order(Protocol):
    """An order of rows that changes with the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[int]: ...


def current_shard() -> Shard:
    """Return this process's place among those that ``torchrun`` started; alone, it is WHOLE."""
    if not TorchElasticEnvironment.detect():
        return WHOLE
    environment = TorchElasticEnvironment()
    return Shard(environment.global_rank(), environment.world_size())


def processes_here() -> int:
    """Return how many of the processes that ``torchrun`` started run on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if TorchElasticEnvironment.detect() else 1


@contextlib.contextmanager
def shared_norms(network: nn.Module, shard: Shard, device: torch.device) -> Iterator[None]:
    """Let the network's batch norms see the rows of all processes, where they run on cards.

    There is no such thing for the processor; there, every process normalises its own share. Names
    of weights and statistics stay, and so do the weights themselves: an optimiser may hold them.

    Args:
        network: Has its own norms again afterwards, with what they have learned.
        shard: This process.
        device: Where the network is trained.
    """
    if shard.world_size == 1 or device.type != "cuda":
        yield
        return
    # One norm may stand in two places.
    modules = network.named_modules(remove_duplicate=False)
    own = {name: module for name, module in modules if isinstance(module, _BatchNorm)}
    # Lightning's conversion is torch's, which drops the activations that timm keeps in its norms.
    convert: Any = convert_sync_batchnorm
    convert(network)
    try:
        yield
    finally:
        for name, norm in own.items():
            _take_over(norm, network.get_submodule(name))
            network.set_submodule(name, norm)


def _take_over(norm: nn.Module, other: nn.Module) -> None:
    """Give a norm the other's weights, statistics and mode."""
    # Moving a module replaces its statistics, so that the two no longer share them.
    named = (*other.named_parameters(recurse=False), *other.named_buffers(recurse=False))
    for name, value in named:
        setattr(norm, name, value)
    norm.training = other.training


class ShardedOrder(Sampler[int]):
    """This process's rows of every batch of an order that all processes share.

    Batches of the shared order that are not full are left out, since all processes must take
    the same number of steps.

    Args:
        order: The shared order.
        batch_size: Rows of one step of all processes together; a multiple of their number.
        shard: This process.
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

    The gradient is the one that a single process would have, once DistributedDataParallel has
    averaged the processes' parameters' gradients.

    Args:
        values: This process's rows (B / world_size, ...).
        shard: This process.
    """
    if shard.world_size == 1:
        return values
    # Rank r holds rows r, r + world_size, …: stacking behind the row axis interleaves them again.
    return torch.stack(all_gather(values.contiguous()), dim=1).flatten(0, 1)


def total(values: Tensor, shard: Shard) -> Tensor:
    """Return the sum of a tensor over all processes."""
    if shard.world_size > 1:
        torch.distributed.all_reduce(values)
    return values
