"""Arithmetic that gives a user the same numbers in every batch.

A product of matrices is rounded by their shapes, and a vectorised function by the place of a value
in memory. Both change the last bit alone, but trees turn that into other scores. So functions and
networks are computed in double precision and rounded once, and on a processor each user's large
products are computed alone, or in groups of one shape. An accelerator would be slow with that and
multiplies whole batches in single precision: there, scores differ by rounding.
"""

import copy
from collections.abc import Iterator
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUP = 4  # users that are multiplied at once; more would make a single user slower

Network = TypeVar("Network", bound=nn.Module)


def log1p(values: Tensor) -> Tensor:
    """Return log(1 + value), float32."""
    return torch.log1p(values.double()).float()


def exp2(values: Tensor) -> Tensor:
    """Return two to the power of each value, float32."""
    return torch.exp2(values.double()).float()


def exact(network: Network) -> Network:
    """Return a network in double precision: a copy on a processor, else the network itself."""
    on_processor = all(one.device.type == "cpu" for one in network.parameters())
    return copy.deepcopy(network).double() if on_processor else network


def multiplied_together(n_users: int, device: torch.device) -> Iterator[slice]:
    """Yield the users whose products are computed at once: one, or all on an accelerator."""
    if device.type != "cpu":
        yield slice(0, n_users)
        return
    for user in range(n_users):
        yield slice(user, user + 1)


def products(vectors: Tensor, items: Tensor) -> Tensor:
    """Return the product of each user's vector (B, D) with each item (N, D), (B, N).

    On a processor the users are multiplied in groups of one size, the last one filled up with
    zeros: where the shapes are always the same, so is the rounding.
    """
    if items.device.type != "cpu":
        return vectors @ items.T
    found = items.new_empty(len(vectors), len(items))
    whole = len(vectors) // GROUP * GROUP
    for start in range(0, whole, GROUP):
        some = slice(start, start + GROUP)
        # A copy begins where every copy begins, at a multiple of 64 bytes.
        torch.mm(vectors[some].clone(), items.T, out=found[some])
    if whole < len(vectors):
        rest = F.pad(vectors[whole:], (0, 0, 0, GROUP - len(vectors) + whole))
        found[whole:] = (rest @ items.T)[: len(vectors) - whole]
    return found
