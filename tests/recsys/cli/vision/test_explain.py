import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vision.explain import Method, explain, overlay
from vision.tower import VisionTower

Ask = Callable[..., Any]
Say = Callable[..., str]


@pytest.mark.parametrize("method", ["grad_cam", "lime"])
def test_explain_writes_the_heat_map_of_the_library(
    method: Method, tiny_bundle: Path, tower: VisionTower, photo: Path, tmp_path: Path, ask: Ask
) -> None:
    out = tmp_path / "new" / "heat.png"
    options = ("--target", "category_1", "--method", method)
    answer = ask("vision", "explain", tiny_bundle, photo, "--out", out, *options)
    wanted = explain(tower, photo, target="category_1", method=method)
    assert answer == {
        "target": "category_1",
        "class": wanted.class_name,
        "probability": pytest.approx(wanted.probability),
        "file": str(out),
    }
    with Image.open(out) as picture:
        assert (picture.format, picture.size) == ("PNG", (tower.preprocess.size,) * 2)
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(overlay(wanted)))


def test_explain_is_about_the_given_class_or_the_predicted_one(
    tiny_bundle: Path, tower: VisionTower, photo: Path, tmp_path: Path, say: Say
) -> None:
    command = ("vision", "explain", tiny_bundle, photo, "--out", tmp_path / "heat.png")
    probabilities = tower.predict_proba([photo])["category_3"][0]
    names = tower.classes["category_3"]
    predicted, least = names[probabilities.argmax()], names[probabilities.argmin()]
    for options, name in (((), predicted), (("--class", least), least)):
        said = say(*command, *options)
        assert f"category_3: {name}, probability {probabilities[names.index(name)]:.3f};" in said


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--target", "kind", "target must be one of category_1, category_2"),
        ("--class", "Dragon", "class_name must be one of Fashion"),
        ("--method", "magic", "method must be one of grad_cam, lime, shap, got 'magic'"),
        ("--out", "heat.jpg", "out must end in .png, got 'heat.jpg'"),
    ],
)
def test_explain_refuses_an_unknown_target_class_method_or_suffix(
    option: str,
    value: str,
    message: str,
    tiny_bundle: Path,
    photo: Path,
    tmp_path: Path,
    refusal: Say,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refusal("vision", "explain", tiny_bundle, photo, "--out", "heat.png", option, value)
    assert said.startswith(message)
    assert said.endswith(f"got {value!r}")
    assert "\n" not in said
    assert not [*tmp_path.iterdir()]


def test_a_missing_or_unreadable_photo_is_refused(
    tiny_bundle: Path, tmp_path: Path, refusal: Say
) -> None:
    photo, out = tmp_path / "photo.jpg", tmp_path / "heat.png"
    command = ("vision", "explain", tiny_bundle, photo, "--out", out)
    assert f"image '{photo}' cannot be found" in refusal(*command)
    photo.write_bytes(b"not a picture")
    said = refusal(*command)
    assert said.startswith(f"{str(photo)!r}: image cannot be decoded: got 13 bytes")
    assert not out.exists()


@pytest.mark.parametrize("method", ["lime", "shap"])
def test_without_captum_the_error_names_the_extra_to_install(
    method: str,
    tiny_bundle: Path,
    photo: Path,
    refusal: Say,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # None is how Python marks a module that cannot be imported.
    monkeypatch.setitem(sys.modules, "captum", None)
    command = ("vision", "explain", tiny_bundle, photo, "--out", "heat.png", "--method", method)
    assert refusal(*command).endswith("pip install 'vitrine-recsys[explain]'")
