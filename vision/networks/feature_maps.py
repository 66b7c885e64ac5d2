"""The feature maps inside any backbone, found by watching one picture pass through it."""

import contextlib
import math
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor, nn


class FeatureMap(NamedTuple):
    """What one module made of a picture, with places in it."""

    values: Tensor  # (1, C, h, w), (1, h, w, C) or tokens (1, T, C), as the module gave them
    side: int  # h and w

    def to_map(self, values: Tensor) -> Tensor:
        """Return values of this layout, such as a gradient, as (C, h, w).

        Tokens lie row by row; those before the patches (the class token, registers) are dropped.
        """
        if values.ndim == 3:
            patches = values[0, -(self.side**2) :]
            return patches.T.reshape(-1, self.side, self.side)
        return values[0] if _channels_first(values) else values[0].permute(2, 0, 1)


@contextlib.contextmanager
def record_maps(network: nn.Module, width: int) -> Iterator[list[FeatureMap]]:
    """Collect the feature maps of the one square picture that passes meanwhile, first to last.

    A map is the output of a module that is (1, C, h, w) or (1, h, w, C), h = w > 1, as in
    convolutional networks and Swin; or (1, T, width), the tokens of a transformer but not the
    wider ones inside its blocks. Tokens are laid out with the side of the patches' own map, seen
    before them, or, where they are fewer since (Swin merges them), of the largest square they fill.

    Args:
        network: What the picture passes through.
        width: Size of its features.
    """
    maps: list[FeatureMap] = []

    def keep(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        if not isinstance(output, Tensor) or not output.requires_grad or output.shape[0] != 1:
            return
        if output.ndim == 4 and (_channels_first(output) or output.shape[1] == output.shape[2]):
            side = output.shape[2]
        elif output.ndim == 3 and output.shape[2] == width:
            patches = next((one.side for one in reversed(maps) if one.values.ndim == 4), math.inf)
            side = int(min(patches, math.isqrt(output.shape[1])))
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
