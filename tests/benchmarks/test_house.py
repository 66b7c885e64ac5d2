import ast

import pytest

from benchmarks.house import (
    MAX_BODY_LINES,
    MAX_CONTRACT_LINES,
    MAX_PARAMETERS,
    MAX_ROOT_MODULES,
    Function,
    _functions_of,
    body_lines,
    contract_lines,
    functions,
    is_typed,
    parameters,
    root_modules,
)

SOURCE = '''
class Shop:
    """A shop."""

    def sell(self, item, *rest: int, price: float = 1.0, **more: str) -> None:
        """Sell an item.

        The docstring does not count.
        """
        print(
            item,
        )

    @staticmethod
    def open(door: str) -> bool:
        def knock(): return True
        return knock()

async def _hidden(): pass
'''


@pytest.fixture
def found() -> dict[str, Function]:
    return {one.node.name: one for one in _functions_of(ast.parse(SOURCE), "x.py", is_public=True)}


def test_the_lines_of_a_body_exclude_signature_and_docstring(found: dict[str, Function]) -> None:
    assert {name: body_lines(one) for name, one in found.items()} == {
        "sell": 3,
        "open": 2,
        "knock": 1,
        "_hidden": 1,
    }


def test_all_parameters_count_except_the_object_of_a_method(
    found: dict[str, Function],
) -> None:
    names = {name: sorted(arg.arg for arg in parameters(one)) for name, one in found.items()}

    assert names["sell"] == ["item", "more", "price", "rest"]
    assert names["open"] == ["door"]


def test_functions_with_a_missing_type_and_private_functions_are_recognised(
    found: dict[str, Function],
) -> None:
    assert [name for name, one in found.items() if is_typed(one)] == ["open"]
    assert [name for name, one in found.items() if one.is_public] == ["sell", "open"]


def test_the_packages_keep_the_limits() -> None:
    found = functions()
    long = [one.where for one in found if body_lines(one) > MAX_BODY_LINES]
    wide = [one.where for one in found if len(parameters(one)) > MAX_PARAMETERS]
    untyped = [one.where for one in found if one.is_public and not is_typed(one)]

    assert (long, wide, untyped) == ([], [], [])
    assert len(root_modules()) <= MAX_ROOT_MODULES
    assert len(contract_lines()) <= MAX_CONTRACT_LINES
