import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import Any

import pytest

PACKAGES = ("recsys", "vision", "text", "serving")


@pytest.fixture(params=PACKAGES)
def package(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(request.param)


def _submodules(package: ModuleType) -> set[str]:
    return {module.name for module in pkgutil.iter_modules(package.__path__)}


def _own_docstring(value: Any) -> str:
    """Return the docstring in the source, not one of a base class or made by a dataclass."""
    text = str(vars(value).get("__doc__") or "") if inspect.isclass(value) else value.__doc__ or ""
    return "" if text.startswith(f"{value.__name__}(") else text


def test_all_is_sorted_and_without_repetitions(package: ModuleType) -> None:
    assert list(package.__all__) == sorted(set(package.__all__))


def test_every_name_in_all_can_be_imported(package: ModuleType) -> None:
    missing = [name for name in package.__all__ if getattr(package, name, None) is None]

    assert missing == []


def test_every_public_name_is_in_all(package: ModuleType) -> None:
    public = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and str(getattr(value, "__module__", "")).split(".")[0] == package.__name__
    }

    assert public - set(package.__all__) == set()
    assert set(package.__all__) <= set(dir(package))


def test_no_name_in_all_hides_a_submodule(package: ModuleType) -> None:
    # A function and a module of the same name would replace each other on import.
    both = set(package.__all__) & _submodules(package)

    assert {name for name in both if not isinstance(getattr(package, name), ModuleType)} == set()


def test_every_public_name_has_a_docstring_of_its_own(package: ModuleType) -> None:
    silent = [
        name
        for name in package.__all__
        if callable(value := getattr(package, name)) and not _own_docstring(value)
    ]

    assert silent == []
    assert package.__doc__


def test_every_public_method_of_a_public_class_has_a_docstring(package: ModuleType) -> None:
    silent = [
        f"{name}.{method}"
        for name in package.__all__
        if inspect.isclass(getattr(package, name))
        for method, value in vars(getattr(package, name)).items()
        if not method.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, property))
        and not inspect.getdoc(value)
    ]

    assert silent == []


def test_an_unknown_name_raises_an_attribute_error(package: ModuleType) -> None:
    misspelt = "Recomender"

    with pytest.raises(AttributeError, match=f"no attribute '{misspelt}'"):
        getattr(package, misspelt)
