import inspect
from types import ModuleType

import pytest

import recsys.errors
import text.errors
import vision.errors
from recsys.training.tower_errors import TRANSLATIONS, translate_tower_errors


def expected(module: ModuleType, root: type[Exception]) -> list[type[Exception]]:
    """Return the errors of a package below its root."""
    classes = [one for _, one in inspect.getmembers(module, inspect.isclass)]
    return [one for one in classes if issubclass(one, root) and one is not root]


def test_every_error_of_the_towers_has_a_translation() -> None:
    of_vision = expected(vision.errors, vision.errors.VisionError)
    of_text = expected(text.errors, text.errors.TextError)
    assert set(TRANSLATIONS) == {*of_vision, *of_text}


@pytest.mark.parametrize("kind", TRANSLATIONS)
def test_a_translated_error_keeps_its_message_and_its_cause(kind: type[Exception]) -> None:
    error = kind("size must be at least 8, got 4")
    message = "size must be at least 8, got 4"
    with pytest.raises(TRANSLATIONS[kind], match=message) as raised, translate_tower_errors():
        raise error
    assert isinstance(raised.value, recsys.errors.RecsysError)
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("error", [ValueError("a defect"), recsys.errors.DataError("bad table")])
def test_other_errors_pass_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, translate_tower_errors():
        raise error
    assert raised.value is error
