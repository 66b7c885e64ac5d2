"""The errors this package raises on purpose.

TextError
├── WeightsError        a named checkpoint is not on this machine
├── CheckpointError     a saved encoder is damaged, incomplete or of another format
└── TrainingError       training cannot go on, or cannot be resumed

A bad argument is a plain ``ValueError``.
"""


class TextError(Exception):
    """Root of every error raised on purpose."""


class WeightsError(TextError):
    """A named checkpoint is not on this machine."""


class CheckpointError(TextError):
    """A saved encoder is damaged, incomplete or of another format."""


class TrainingError(TextError):
    """Training cannot go on, or cannot be resumed."""
