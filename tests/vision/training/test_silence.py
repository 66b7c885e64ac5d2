"""Lightning is quiet only inside the context; text has a copy of the tested module."""

import logging
import warnings

import pytest

from vision.training.silence import quiet_lightning

LOGGERS = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]


def get_levels() -> list[int]:
    return [logger.level for logger in LOGGERS]


def fail_quietly(inside: list[list[int]]) -> None:
    """Append the levels inside the context to a list, and raise there."""
    with quiet_lightning():
        inside.append(get_levels())
        raise OSError("the power went")


def test_levels_and_filters_are_restored_after_an_exception(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for logger, level in zip(LOGGERS, (logging.DEBUG, logging.ERROR), strict=True):
        monkeypatch.setattr(logger, "level", level)
    filters = list(warnings.filters)
    inside: list[list[int]] = []
    with pytest.raises(OSError, match="the power went"):
        fail_quietly(inside)
    assert inside == [[logging.WARNING, logging.WARNING]]
    assert get_levels() == [logging.DEBUG, logging.ERROR]
    assert list(warnings.filters) == filters


def test_only_known_advice_is_silenced() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with quiet_lightning():
            warnings.warn("consider more num_workers", UserWarning, stacklevel=1)
            warnings.warn("something else", UserWarning, stacklevel=1)
        warnings.warn("consider more num_workers again", UserWarning, stacklevel=1)
    assert [str(one.message) for one in caught] == [
        "something else",
        "consider more num_workers again",
    ]
