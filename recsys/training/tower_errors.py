"""The boundary at which errors of the towers' packages become errors of this one."""

from collections.abc import Iterator
from contextlib import contextmanager

import text.errors
import vision.errors
from recsys.errors import (
    FileAccessError,
    InvalidArgumentError,
    InvalidImageError,
    MissingExtraError,
    RecsysError,
    TrainingError,
    WeightsError,
)

TRANSLATIONS: dict[type[Exception], type[RecsysError]] = {
    vision.errors.ImageError: InvalidImageError,
    vision.errors.WeightsError: WeightsError,
    vision.errors.CheckpointError: WeightsError,
    vision.errors.InvalidArgumentError: InvalidArgumentError,
    vision.errors.MissingExtraError: MissingExtraError,
    vision.errors.FileAccessError: FileAccessError,
    vision.errors.TrainingError: TrainingError,
    text.errors.WeightsError: WeightsError,
    text.errors.CheckpointError: WeightsError,
    text.errors.InvalidArgumentError: InvalidArgumentError,
    text.errors.MissingExtraError: MissingExtraError,
    text.errors.FileAccessError: FileAccessError,
    text.errors.TrainingError: TrainingError,
}


@contextmanager
def translate_tower_errors() -> Iterator[None]:
    """Raise an expected error of a tower as a ``RecsysError`` with the same message.

    Raises:
        RecsysError: If the body raises a ``VisionError`` or a ``TextError``, which is the cause.
    """
    try:
        yield
    except (vision.errors.VisionError, text.errors.TextError) as error:
        raise TRANSLATIONS.get(type(error), TrainingError)(str(error)) from error
