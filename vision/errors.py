"""The errors this package raises on purpose.

VisionError
├── ImageError          bytes or a file that are not a picture we accept (also a ValueError)
├── WeightsError        named weights are not on this machine, or do not fit the network
├── CheckpointError     a saved tower is missing, damaged or of another format
└── TrainingError       training cannot go on, or cannot be resumed

A bad argument is a plain ``ValueError``.
"""


class VisionError(Exception):
    """Root of every error raised on purpose."""


class ImageError(VisionError, ValueError):
    """Bytes or a file that are not a picture we accept.

    Args:
        message: What is wrong.
        position: Which of several pictures it was, where there were several.
    """

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


class WeightsError(VisionError):
    """Named weights are not on this machine, or do not fit the network."""


class CheckpointError(VisionError):
    """A saved tower is missing, damaged or of another format."""


class TrainingError(VisionError):
    """Training cannot go on, or cannot be resumed."""
