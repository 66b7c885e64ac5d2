from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner

from recsys.cli.app import app
from recsys.pipeline import Run

Say = Callable[..., str]
Write = Callable[..., Path]


def test_every_vision_command_can_print_json() -> None:
    for command in ("report", "explain", "select", "tune", "folds", "export"):
        assert "--json" in CliRunner().invoke(app, ["vision", command, "--help"]).stdout


def test_a_bundle_without_a_vision_tower_is_refused_by_every_vision_command(
    tiny_run: Run, photo: Path, write: Write, tmp_path: Path, refusal: Say
) -> None:
    bundle, config = tiny_run.ablations["text-only"], write()
    for command in (
        ("report", bundle, config, "--out", tmp_path / "report"),
        ("explain", bundle, photo, "--out", tmp_path / "heat.png"),
        ("select", bundle, config, "--k", 1, "--out", tmp_path / "next.csv"),
        ("export", bundle, "--out", tmp_path / "onnx"),
    ):
        assert "has no 'vision' part" in refusal("vision", *command)
