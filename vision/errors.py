"""The errors that this package raises on purpose.

VisionError
├── ImageError            the data is not an image that we accept (also a ValueError)
├── WeightsError          named weights are not on this machine, or do not fit the network
├── CheckpointError       a saved tower is missing, damaged or of another format
├── InvalidArgumentError  an argument that the caller must change (also a ValueError)
├── FileAccessError       a file or folder cannot be written (also an OSError)
├── MissingExtraError     an optional package is not installed (also an ImportError)
└── TrainingError         training cannot continue, or cannot be resumed

Any other exception is a defect of this library.
"""

from pathlib import Path


class VisionError(Exception):
    """Root of every error raised on purpose."""


class ImageError(VisionError, ValueError):
    """The data is not an image that we accept.

    Args:
        message: Description of the problem.
        position: Index of the image where several were passed.
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


class FileAccessError(VisionError, OSError):
    """A file or folder cannot be written.

    Args:
        message: Description of the problem.
        path: Path that cannot be written.
    """

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


class MissingExtraError(VisionError, ImportError):
    """An optional package is not installed; the message has the command that installs it."""


class TrainingError(VisionError):
    """Training cannot continue, or cannot be resumed."""
