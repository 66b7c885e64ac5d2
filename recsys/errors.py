"""The errors this library raises on purpose.

RecsysError
├── ConfigError           a configuration file or value cannot be used
├── DataError             a table cannot be used at all
│   ├── SchemaError       columns or types are not what the schema wants
│   └── LeakageError      training would see what evaluation asks for
├── BundleError           a bundle is missing, damaged, tampered with, or of another format
├── MissingPartError      the bundle is sound but was trained without the part this needs
├── UnknownItemError      no such item in the catalogue
├── UnknownUserError      no such user, where one is needed
├── InvalidImageError     bytes that are not an image we accept
├── InvalidArgumentError  an argument that the caller must change (also a ValueError)
├── FileAccessError       a file or folder cannot be read or written (also an OSError)
├── MissingExtraError     an optional package is not installed (also an ImportError)
├── WeightsError          weights that a tower starts from are missing or cannot be used
├── RankingError          the trained ranker or user encoder fails on sound input
└── TrainingError         training cannot go on (NaN loss, nothing to train on)

Any other exception is a defect of this library and keeps its traceback.
"""

from pathlib import Path


class RecsysError(Exception):
    """Root of every error raised on purpose."""


class ConfigError(RecsysError):
    """A configuration file or value cannot be used."""


class DataError(RecsysError):
    """A table cannot be used at all."""


class SchemaError(DataError):
    """Columns or types of a table are not what the schema wants."""


class LeakageError(DataError):
    """Training would see what evaluation asks for."""


class BundleError(RecsysError):
    """A bundle is missing, damaged, tampered with, or of another format."""


class MissingPartError(RecsysError):
    """The bundle is sound but was trained without the part this needs."""


class UnknownItemError(RecsysError):
    """No such item in the catalogue."""


class UnknownUserError(RecsysError):
    """No such user, where one is needed."""


class InvalidImageError(RecsysError):
    """Bytes that are not an image we accept."""


class InvalidArgumentError(RecsysError, ValueError):
    """An argument that the caller must change; the message has its name, value and bounds."""


class FileAccessError(RecsysError, OSError):
    """A file or folder that was named cannot be read or written.

    Args:
        message: Description of the problem.
        path: Path that cannot be written, if that is the problem.
    """

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


class MissingExtraError(RecsysError, ImportError):
    """An optional package is not installed; the message has the command that installs it."""


class WeightsError(RecsysError):
    """Weights that a tower starts from are not on this machine, or cannot be used."""


class RankingError(RecsysError):
    """The trained ranker or user encoder fails on sound input, or gives no finite numbers."""


class TrainingError(RecsysError):
    """Training cannot go on."""
