"""The feature maps inside any backbone, recorded while one picture passes through it."""

import contextlib
import math
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor, nn


class FeatureMap(NamedTuple):
    """The output of one module for one picture, laid out in rows and columns."""

    values: Tensor  # (1, C, h, w), (1, h, w, C) or tokens (1, T, C), as the module returned them
    side: int  # h and w

    def to_map(self, values: Tensor) -> Tensor:
        """Return values of the same layout, such as a gradient, as (C, h, w).

        Tokens are in row order, and those before the patches (class token, registers) are dropped.
        """
        if values.ndim == 3:
            patches = values[0, -(self.side**2) :]
            return patches.T.reshape(-1, self.side, self.side)
        return values[0] if _channels_first(values) else values[0].permute(2, 0, 1)


@contextlib.contextmanager
def record_maps(network: nn.Module, width: int) -> Iterator[list[FeatureMap]]:
    """Collect the feature maps of one square picture that passes while the context is open.

    A feature map is the output of a module with shape (1, C, h, w) or (1, h, w, C), where h = w and
    h > 1, as in convolutional networks and Swin. Tokens of a transformer with shape (1, T, width)
    count as well, while the wider tokens inside its blocks do not. Tokens are laid out in a square:
    as large as the map of the patches that came before them, or the largest square that they fill
    if there are fewer tokens by now, because Swin merges them. Maps are in the order of the pass.

    Args:
        network: Network that the picture passes through.
        width: Size of the features of the network.
    """
    maps: list[FeatureMap] = []

    def keep(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        if not isinstance(output, Tensor) or not output.requires_grad or output.shape[0] != 1:
            return
        if output.ndim == 4 and (_channels_first(output) or output.shape[1] == output.shape[2]):
            side = output.shape[2]
        elif output.ndim == 3 and output.shape[2] == width:
            sides = (known.side for known in reversed(maps) if known.values.ndim == 4)
            side = int(min(next(sides, math.inf), math.isqrt(output.shape[1])))
        else:
            return
        if side > 1:
            maps.append(FeatureMap(output, side))

    hooks = [module.register_forward_hook(keep) for module in network.modules()]
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()


def _channels_first(values: Tensor) -> bool:
    return values.shape[2] == values.shape[3]
