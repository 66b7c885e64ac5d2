"""Nothing that the packages read can execute: no pickle, and torch loads weights only."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("recsys", "vision", "text", "serving", "protos")
MODULES = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")


def _offences(source: str) -> Iterator[str]:
    """Yield what in a program could execute what it reads."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = []
        for name in names:
            if name.split(".")[0] in MODULES:
                yield f"line {node.lineno} imports {name}"
        if isinstance(node, ast.Call):
            yield from _of_call(node)


def _of_call(node: ast.Call) -> Iterator[str]:
    called = ast.unparse(node.func)
    given = {one.arg: ast.unparse(one.value) for one in node.keywords}
    is_load = called == "torch.load" or called.endswith("load_from_checkpoint")
    if is_load and given.get("weights_only") != "True":
        yield f"line {node.lineno} calls {called} without weights_only=True"
    if called in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
        yield f"line {node.lineno} calls {called} without allow_pickle=False"
    if called in ("eval", "exec", "torch.jit.load", "yaml.load"):
        yield f"line {node.lineno} calls {called}"


def test_the_packages_execute_nothing_that_they_read() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {offence}"
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for offence in _offences(path.read_text("utf-8"))
    ]

    assert found == []


@pytest.mark.parametrize(
    ("source", "is_safe"),
    [
        ("import pickle", False),
        ("from joblib import load", False),
        ("import torch\ntorch.load('x')", False),
        ("torch.load('x', weights_only=False)", False),
        ("torch.load('x', weights_only=True)", True),
        ("Model.load_from_checkpoint('x')", False),
        ("np.load('x')", False),
        ("np.load('x', allow_pickle=False)", True),
        ("eval('1')", False),
        ("model.eval()", True),
    ],
)
def test_the_search_sees_what_it_is_for(source: str, is_safe: bool) -> None:
    assert (not list(_offences(source))) is is_safe
