"""Measure the shape of the code, which decides how easily it is read.

Run from the repository's root: ``python -m benchmarks.house``. It fails if a figure is over its
limit.
"""

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.record import record
from tests.documentation import executed_blocks

COMMAND = "python -m benchmarks.house"
ROOT = Path(__file__).parents[1]
PACKAGES = ("recsys", "vision", "text", "serving")

MAX_ROOT_MODULES = 6
MAX_BODY_LINES = 45
MAX_PARAMETERS = 8
MAX_CONTRACT_LINES = 11
# Modules that every package has; they do not show what recsys is about.
FOUNDATION = frozenset({"__init__", "errors", "config", "schema"})

AnyFunction = ast.FunctionDef | ast.AsyncFunctionDef


class Function(NamedTuple):
    """A function or method of the packages.

    Args:
        where: File, line and name.
        node: Syntax tree of the definition.
        is_method: Whether the first parameter is the object or the class.
        is_public: Whether code outside can call it: it is not private, nor inside something
            private or another function.
    """

    where: str
    node: AnyFunction
    is_method: bool
    is_public: bool


def root_modules() -> list[str]:
    """Return the names of the modules at the root of recsys, except those in every package."""
    return sorted({path.stem for path in (ROOT / "recsys").glob("*.py")} - FOUNDATION)


def contract_lines() -> list[str]:
    """Return the lines of the import contract of recsys, the topmost layer first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers: list[str] = next(c["layers"] for c in contracts if c.get("containers") == ["recsys"])
    return layers


def functions() -> list[Function]:
    """Return every function and method of the packages."""
    return [
        function
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for function in _functions_of(
            ast.parse(path.read_text("utf-8")), str(path.relative_to(ROOT)), is_public=True
        )
    ]


def _functions_of(parent: ast.AST, path: str, *, is_public: bool) -> Iterator[Function]:
    for node in ast.iter_child_nodes(parent):
        hidden = isinstance(node, ast.ClassDef | AnyFunction) and node.name.startswith("_")
        shown = is_public and not hidden
        if isinstance(node, AnyFunction):
            static = any(getattr(mark, "id", "") == "staticmethod" for mark in node.decorator_list)
            is_method = isinstance(parent, ast.ClassDef) and not static
            yield Function(f"{path}:{node.lineno} {node.name}", node, is_method, shown)
            shown = False  # a function inside a function cannot be called from outside
        yield from _functions_of(node, path, is_public=shown)


def body_lines(function: Function) -> int:
    """Return the number of lines of a function below its signature and docstring."""
    body = function.node.body
    if ast.get_docstring(function.node) is not None:
        body = body[1:]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def parameters(function: Function) -> list[ast.arg]:
    """Return the parameters of a function, without the object or class of a method."""
    arguments = function.node.args
    rest = [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
    positional = [*arguments.posonlyargs, *arguments.args]
    return [*positional[function.is_method :], *arguments.kwonlyargs, *rest]


def is_typed(function: Function) -> bool:
    """Return whether every parameter and the return value of a function have a type."""
    typed = all(one.annotation is not None for one in parameters(function))
    return typed and function.node.returns is not None


def main() -> None:
    """Print and record the figures, and fail if one is over its limit."""
    found = functions()
    longest = max(found, key=body_lines)
    wide = [one.where for one in found if len(parameters(one)) > MAX_PARAMETERS]
    untyped = [one.where for one in found if one.is_public and not is_typed(one)]
    roots, contract = root_modules(), contract_lines()
    executed = len(executed_blocks())
    print(f"modules at the root of recsys: {len(roots)} ({', '.join(roots)})")
    print(f"longest function body: {body_lines(longest)} lines ({longest.where})")
    print(f"functions over {MAX_PARAMETERS} parameters: {len(wide)}", *wide, sep="\n  ")
    print(f"public functions without a full type: {len(untyped)}", *untyped, sep="\n  ")
    print(f"lines in the import contract: {len(contract)}")
    print(f"executed documentation blocks: {executed}")
    record("house", "house.recsys_root_modules", len(roots), "modules", COMMAND)
    record("house", "house.longest_body", body_lines(longest), "lines", COMMAND)
    record("house", "house.executed_blocks", executed, "blocks", COMMAND)
    if (
        len(roots) > MAX_ROOT_MODULES
        or body_lines(longest) > MAX_BODY_LINES
        or len(contract) > MAX_CONTRACT_LINES
        or wide
        or untyped
    ):
        sys.exit("a figure is over its limit")


if __name__ == "__main__":
    main()
