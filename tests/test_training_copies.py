"""What vision and text both have, since they may not share a package, stays alike."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COPIES = (
    "device.py",
    "files.py",
    "networks/packages.py",
    "printable.py",
    "training/callbacks.py",
    "training/checkpoints.py",
    "training/run.py",
    "training/schedule.py",
    "training/seeds.py",
    "training/silence.py",
)


def definitions(package: str, file: str) -> dict[str, str]:
    """Return the source of each class, function and constant, and of all imports together."""
    source = (ROOT / package / file).read_text().replace(f"{package}.", "PACKAGE.")
    found = {"imports": ""}
    for node in ast.parse(source).body:
        match node:
            case ast.ClassDef() | ast.FunctionDef():
                found[node.name] = ast.unparse(node)
            case ast.Assign(targets=[ast.Name(id=name)]):
                found[name] = ast.unparse(node)
            case ast.Import() | ast.ImportFrom():
                found["imports"] += f"{ast.unparse(node)}\n"
    return found


@pytest.mark.parametrize("file", COPIES)
def test_a_copied_file_is_the_same_in_both_packages(file: str) -> None:
    first = definitions("vision", file)
    assert len(first) > 1
    assert definitions("text", file) == first


def test_both_packages_choose_in_the_same_way_what_a_run_keeps() -> None:
    first, second = (
        definitions(package, "training/trainer.py")["fit_settings"]
        for package in ("vision", "text")
    )
    assert first.replace("VisionConfig", "Config") == second.replace("TextConfig", "Config")
