"""The device to compute on."""

from typing import Literal

import torch

from text.errors import InvalidArgumentError

Device = Literal["auto", "cpu", "cuda"]


def resolve_device(device: str) -> torch.device:
    """Return the torch device of a name; ``auto`` is CUDA if a GPU is available, else the CPU.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, one card such as ``cuda:1``, or another name of torch.

    Raises:
        InvalidArgumentError: If this machine has no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
        torch.empty(0, device=place)  # only using it shows whether card and driver are there
    # torch raises different types for an unknown name, a missing driver and a missing card.
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidArgumentError(
            f"device must be auto, cpu or another that this machine has, got {device!r} ({reason})"
        ) from error
    return place
