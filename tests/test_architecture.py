import ast
import json
import pkgutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("recsys", "vision", "text", "serving", "protos")
MAX_LINES = 400
DEFINITIONS = (
    ast.Import,
    ast.ImportFrom,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
)


def _python(code: str) -> str:
    """Return what the code prints in a new interpreter, which has imported nothing yet."""
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def _sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "_pb2" not in path.name:  # generated
                yield path


def _modules() -> list[str]:
    return [
        module.name
        for package in PACKAGES
        for module in pkgutil.walk_packages([str(ROOT / package)], prefix=f"{package}.")
        if not module.name.endswith("__main__")
    ]


def _acts(statement: ast.stmt) -> bool:
    """Return whether a statement of a module does more than import, define or assign a name."""
    match statement:
        case ast.Assign(targets=targets):  # os.environ["X"] = ... has a subscript as its target
            return not all(isinstance(target, ast.Name | ast.Tuple) for target in targets)
        case ast.AnnAssign(target=ast.Name()) | ast.Expr(value=ast.Constant()):
            return False
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return False
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
            return False
    return not isinstance(statement, DEFINITIONS)


def test_the_import_contracts_hold() -> None:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr
    assert "kept, 0 broken" in result.stdout


def test_the_architecture_page_draws_the_import_contract() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    layers = next(c["layers"] for c in settings["contracts"] if c.get("containers") == ["recsys"])
    drawn = "\n".join(layer.replace(" | ", "  ").replace(" : ", "  ") for layer in reversed(layers))

    assert f"```\n{drawn}\n```" in (ROOT / "ARCHITECTURE.md").read_text("utf-8")


def test_no_file_is_longer_than_the_limit() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for path in _sources(*PACKAGES, "tests", "benchmarks", "examples")
    }

    too_long = {name: length for name, length in lengths.items() if length > MAX_LINES}
    assert too_long == {}, f"split every file of more than {MAX_LINES} lines"


def test_every_module_has_a_docstring_and_every_package_a_py_typed_file() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in _sources(*PACKAGES, "benchmarks", "examples")
        if not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]

    assert silent == []
    assert all((ROOT / package / "py.typed").is_file() for package in PACKAGES[:-1])


def test_a_module_only_imports_defines_and_assigns_names() -> None:
    acting = [
        f"{path.relative_to(ROOT)}:{statement.lineno}"
        for path in _sources(*PACKAGES)
        if path != ROOT / "recsys" / "cli" / "app.py"  # it adds the commands to the application
        for statement in ast.parse(path.read_text("utf-8")).body
        if _acts(statement)
    ]

    assert acting == [], "importing a module must have no side effect"


def test_the_check_of_module_bodies_recognises_statements_with_effects() -> None:
    source = 'os.environ["A"] = "b"\nlogging.basicConfig()\nfor x in y:\n    pass\ntry:\n    pass\n'
    source += "except ImportError:\n    pass\nFINE = 1\ntype_also: int = 2\n"

    assert [_acts(statement) for statement in ast.parse(source).body] == [True] * 4 + [False] * 2


def test_importing_every_module_does_not_change_logging_signals_or_devices() -> None:
    code = f"""
import importlib, json, logging, os, signal
interrupt = signal.getsignal(signal.SIGINT)
folder = os.getcwd()
for name in {_modules()!r}:
    importlib.import_module(name)
import torch
loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict]
ours = [logger for logger in loggers if logger.name.split(".")[0] in {PACKAGES!r}]
print(json.dumps({{
    "root handlers": len(logging.root.handlers),
    "root level": logging.root.level,
    "configured": [logger.name for logger in ours if logger.handlers or logger.level],
    "interrupt": signal.getsignal(signal.SIGINT) is interrupt,
    "device in use": torch.cuda.is_initialized(),
    "dtype": str(torch.get_default_dtype()),
    "deterministic": torch.are_deterministic_algorithms_enabled(),
    "folder": os.getcwd() == folder,
}}))
"""
    assert json.loads(_python(code).splitlines()[-1]) == {
        "root handlers": 0,
        "root level": 30,
        "configured": [],
        "interrupt": True,
        "device in use": False,
        "dtype": "torch.float32",
        "deterministic": False,
        "folder": True,
    }


def test_importing_the_packages_changes_no_environment_and_loads_no_heavy_module() -> None:
    code = f"""
import os, sys
before = dict(os.environ)
import {", ".join(PACKAGES)}
assert dict(os.environ) == before
print(*{{name.split(".")[0] for name in sys.modules}})
"""
    assert not {"torch", "lightning", "transformers", "grpc"} & set(_python(code).split())


def test_importing_the_command_line_loads_no_heavy_module() -> None:
    loaded = _python("import recsys.cli, sys; print(*{n.split('.')[0] for n in sys.modules})")

    assert not {"torch", "lightning", "transformers", "timm", "grpc"} & set(loaded.split())
