"""The errors this package raises on purpose.

VisionError
├── ImageError            bytes or a file that are not a picture we accept (also a ValueError)
├── WeightsError          named weights are not on this machine, or do not fit the network
├── CheckpointError       a saved tower is missing, damaged or of another format
├── InvalidArgumentError  an argument that the caller must change (also a ValueError)
├── MissingExtraError     an optional package is not installed (also an ImportError)
└── TrainingError         training cannot go on, or cannot be resumed

Any other exception is a defect of this library.
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


class InvalidArgumentError(VisionError, ValueError):
    """An argument that the caller must change; the message has its name, value and bounds."""


class MissingExtraError(VisionError, ImportError):
    """An optional package is not installed; the message has the command that installs it."""


class TrainingError(VisionError):
    """Training cannot go on, or cannot be resumed."""
