import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vision.deploy.onnx_tower import OnnxTower
from vision.tower import VisionTower

Ask = Callable[..., Any]
Say = Callable[..., str]
Write = Callable[..., Path]


@pytest.mark.slow
def test_exported_towers_answer_as_the_tower_of_the_bundle(
    tiny_bundle: Path,
    tower: VisionTower,
    photo: Path,
    write: Write,
    tmp_path: Path,
    ask: Ask,
    say: Say,
) -> None:
    answer = ask("vision", "export", tiny_bundle, "--out", tmp_path / "8", "--config", write())
    files = [tmp_path / "8" / name for name in ("model.onnx", "model.int8.onnx")]
    assert answer == {"files": [str(file) for file in files]}
    exported, wanted = OnnxTower(tmp_path / "8"), tower.embed([photo])
    np.testing.assert_allclose(exported.embed([photo]), wanted, atol=1e-4)
    for name, probabilities in tower.predict_proba([photo]).items():
        np.testing.assert_allclose(exported.predict_proba([photo])[name], probabilities, atol=1e-4)
    assert (OnnxTower(tmp_path / "8", int8=True).embed([photo]) @ wanted.T).item() > 0.9
    assert "model.onnx in" in say("vision", "export", tiny_bundle, "--out", tmp_path / "32")
    assert sorted(file.name for file in (tmp_path / "32").iterdir()) == [
        "config.json",
        "model.onnx",
    ]


def test_an_int8_export_without_pictures_is_refused(
    tiny_bundle: Path, pictureless: Path, tmp_path: Path, refusal: Say
) -> None:
    out = tmp_path / "onnx"
    said = refusal("vision", "export", tiny_bundle, "--out", out, "--config", pictureless)
    assert said == f"{pictureless} must have pictures to train on, got none"
    assert not out.exists()


def test_without_onnx_the_error_names_the_extra_to_install(
    tiny_bundle: Path, tmp_path: Path, refusal: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None is how Python marks a module that cannot be imported.
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    said = refusal("vision", "export", tiny_bundle, "--out", tmp_path / "onnx")
    assert said.endswith("pip install 'vitrine-recsys[onnx]'")
