"""The training loops of vision, text and recsys, which may not share code, are the same."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("vision", "text", "recsys")
WHOLE_FILES = (
    "callbacks.py",
    "checkpoints.py",
    "run.py",
    "schedule.py",
    "seeds.py",
    "silence.py",
)


def definitions(package: str, file: str) -> dict[str, str]:
    """Return the source of each class, function and constant, and of all imports together."""
    source = (ROOT / package / "training" / file).read_text().replace(f"{package}.", "PACKAGE.")
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


@pytest.mark.parametrize("package", PACKAGES[1:])
@pytest.mark.parametrize("file", WHOLE_FILES)
def test_a_copied_file_is_the_same_in_every_package(file: str, package: str) -> None:
    first = definitions(PACKAGES[0], file)
    assert len(first) > 1
    assert definitions(package, file) == first


def test_vision_and_text_have_the_same_settings_of_a_run() -> None:
    first, second = (
        definitions(package, "trainer.py")["fit_settings"] for package in ("vision", "text")
    )
    assert first.replace("VisionConfig", "Config") == second.replace("TextConfig", "Config")


def test_text_and_recsys_build_the_same_trainer() -> None:
    assert (
        definitions("text", "trainer.py")["build_trainer"]
        == definitions("recsys", "loop.py")["build_trainer"]
    )
