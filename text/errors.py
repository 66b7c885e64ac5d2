"""The errors this package raises on purpose.

TextError
├── WeightsError          a named checkpoint cannot be found or fetched
├── CheckpointError       a saved encoder is damaged, incomplete or of another format
├── InvalidArgumentError  an argument that the caller must change (also a ValueError)
├── FileAccessError       a file or folder cannot be written (also an OSError)
├── MissingExtraError     an optional package is not installed (also an ImportError)
└── TrainingError         training cannot continue, or cannot be resumed

Any other exception is a defect of this library.
"""

from pathlib import Path


class TextError(Exception):
    """Root of every error raised on purpose."""


class WeightsError(TextError):
    """A named checkpoint cannot be found or fetched."""


class CheckpointError(TextError):
    """A saved encoder is damaged, incomplete or of another format."""


class InvalidArgumentError(TextError, ValueError):
    """An argument that the caller must change; the message has its name, value and bounds."""


class FileAccessError(TextError, OSError):
    """A file or folder cannot be written.

    Args:
        message: Description of the problem.
        path: Path that cannot be written.
    """

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


class MissingExtraError(TextError, ImportError):
    """An optional package is not installed; the message has the command that installs it."""


class TrainingError(TextError):
    """Training cannot continue, or cannot be resumed."""
