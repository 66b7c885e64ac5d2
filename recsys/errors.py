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
├── InvalidImageError     bytes that are not a picture we accept
└── TrainingError         training cannot go on (NaN loss, nothing to train on)

A bad argument is a plain ``ValueError``.
"""


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
    """Bytes that are not a picture we accept."""


class TrainingError(RecsysError):
    """Training cannot go on."""
