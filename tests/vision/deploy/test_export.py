"""An exported tower has the outputs of the original, exactly in float32 and nearly in int8."""

import logging
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from vision import checkpoint
from vision.dataset import Samples
from vision.deploy.comparison import compare_variants
from vision.deploy.compress import factorise
from vision.deploy.export import export_onnx
from vision.deploy.onnx_tower import OnnxTower
from vision.errors import CheckpointError, ImageError
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower

CLASSES = {"level 0": ["fruit", "milk"], "a.b": ["red", "green", "blue"]}


def pictures(count: int, seed: int = 0) -> list[Image.Image]:
    small = np.random.default_rng(seed).integers(0, 256, (count, 6, 5, 3), dtype=np.uint8)
    return [Image.fromarray(pixels).resize((50, 40)) for pixels in small]


def build_tower(name: str, classes: dict[str, list[str]] = CLASSES) -> VisionTower:
    torch.manual_seed(0)
    tower = VisionTower(build_backbone(name, size=32), dim=16, classes=classes, dropout=0.5)
    # Batch norms need the statistics of a trained network, or all embeddings would be the same.
    tower.train()
    with torch.no_grad():
        for _ in range(20):
            tower(torch.randn(16, 3, 32, 32))
    return tower


@pytest.fixture(scope="module")
def tower() -> VisionTower:
    return build_tower("test_resnet")


@pytest.fixture(scope="module")
def folder(tower: VisionTower, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    export_onnx(tower, folder, int8_calibration=pictures(40, seed=1))
    return folder


def test_float32_outputs_equal_those_of_the_tower_for_every_batch_size(
    tower: VisionTower, folder: Path
) -> None:
    exported, images = OnnxTower(folder), pictures(9)
    assert exported.classes == tower.classes
    for batch_size in (1, 4, 64):
        embeddings = exported.embed(images, batch_size=batch_size)
        assert embeddings.dtype == np.float32
        np.testing.assert_allclose(embeddings, tower.embed(images), atol=1e-4)
    expected = tower.predict_proba(images)
    got = exported.predict_proba(images)
    assert list(got) == list(expected)
    for target, probabilities in expected.items():
        np.testing.assert_allclose(got[target], probabilities, atol=1e-4)
    labels = tower.predict(images)
    assert {name: rows.tolist() for name, rows in exported.predict(images).items()} == {
        name: rows.tolist() for name, rows in labels.items()
    }


def test_int8_outputs_are_close_to_the_tower_and_the_file_is_smaller(
    tower: VisionTower, folder: Path
) -> None:
    exported, images = OnnxTower(folder, int8=True, threads=1), pictures(40)
    embeddings = tower.embed(images)
    cosines = (exported.embed(images) * embeddings).sum(axis=1)
    others = (np.roll(embeddings, 1, axis=0) * embeddings).sum(axis=1)
    assert cosines.min() > 0.98
    assert cosines.min() > others.max(), "each picture is nearer to itself than to another"
    for target, probabilities in tower.predict_proba(images).items():
        np.testing.assert_allclose(exported.predict_proba(images)[target], probabilities, atol=0.1)
    sizes = [(folder / name).stat().st_size for name in ("model.int8.onnx", "model.onnx")]
    assert sizes[0] < 0.5 * sizes[1]


def test_batch_norms_are_folded_and_convolutions_quantised(
    tower: VisionTower, folder: Path
) -> None:
    graph = onnx.load(folder / "model.onnx").graph
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    outputs = [output.name for output in graph.output]
    assert outputs == ["embeddings", "logits/level 0", "logits/a.b"]
    quantised = onnx.load(folder / "model.int8.onnx").graph
    made_by = {name: node.op_type for node in quantised.node for name in node.output}
    sources = Counter(
        made_by[name] for node in quantised.node if node.op_type == "Conv" for name in node.input
    )
    assert set(sources) == {"DequantizeLinear"}
    sizes = {tensor.name: list(tensor.dims) for tensor in quantised.initializer}
    for node in quantised.node:
        if node.op_type == "DequantizeLinear" and len(sizes.get(node.input[0], [])) == 4:
            assert sizes[node.input[1]] == sizes[node.input[0]][:1], "one scale per channel"


@pytest.mark.slow
def test_a_factorised_transformer_is_exported_without_output(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    tower = factorise(build_tower("test_vit"), 0.9)
    with caplog.at_level(logging.WARNING):
        export_onnx(tower, tmp_path, int8_calibration=pictures(40, seed=1))
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert tower.training
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["config.json", "model.int8.onnx", "model.onnx"]
    images = pictures(40)
    expected = tower.embed(images)
    np.testing.assert_allclose(OnnxTower(tmp_path).embed(images), expected, atol=1e-4)
    int8 = OnnxTower(tmp_path, int8=True).embed(images)
    assert (int8 * expected).sum(axis=1).min() > 0.95
    (tmp_path / "model.int8.onnx").unlink()
    with pytest.raises(CheckpointError, match=r"no model\.int8\.onnx; export it with int8_cal"):
        OnnxTower(tmp_path, int8=True)


def test_loading_8_bit_weights_warns_where_their_sums_overflow(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    avx2 = {"avx2": True, "avx_vnni": False, "avx512_vnni": False}
    old = shutil.copytree(folder, tmp_path / "old")
    model = onnx.load(old / "model.int8.onnx")
    del model.metadata_props[:]
    onnx.save(model, old / "model.int8.onnx")
    OnnxTower(folder, int8=True, capabilities=avx2)
    OnnxTower(old, int8=True, capabilities=avx2 | {"avx512_vnni": True})
    OnnxTower(old, capabilities=avx2)
    assert not caplog.records
    OnnxTower(old, int8=True, capabilities=avx2)
    (warning,) = caplog.messages
    assert warning.startswith(f"{old / 'model.int8.onnx'} has 8-bit weights")
    assert warning.endswith("export the tower again, or load it with int8=False")


def test_a_tower_and_its_export_share_a_folder(tower: VisionTower, folder: Path) -> None:
    config = (folder / "config.json").read_text()
    checkpoint.save(tower, folder)
    assert (folder / "config.json").read_text() == config
    np.testing.assert_allclose(
        OnnxTower(folder).embed(pictures(2)),
        checkpoint.load(folder).embed(pictures(2)),
        atol=1e-4,
    )


def test_exporting_removes_the_int8_file_of_another_tower(
    tower: VisionTower, tmp_path: Path
) -> None:
    (tmp_path / "model.int8.onnx").write_bytes(b"of another tower")
    export_onnx(tower, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.onnx"]


def test_no_pictures_give_no_rows(folder: Path) -> None:
    exported = OnnxTower(folder)
    assert exported.embed([]).shape == (0, 16)
    assert {name: rows.shape for name, rows in exported.predict_proba([]).items()} == {
        "level 0": (0, 2),
        "a.b": (0, 3),
    }


def test_wrong_input_is_refused(tower: VisionTower, folder: Path, tmp_path: Path) -> None:
    exported = OnnxTower(folder)
    with pytest.raises(ImageError, match="image 1: image cannot be decoded") as caught:
        exported.embed([pictures(1)[0], b"not a picture"])
    assert caught.value.position == 1
    with pytest.raises(ValueError, match=r"must have shape \(B, 3, 32, 32\), got \(2, 3, 8, 8\)"):
        exported.outputs(torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        exported.embed(pictures(1), batch_size=0)
    with pytest.raises(ValueError, match="int8_calibration must have at least 1 picture, got none"):
        export_onnx(tower, tmp_path / "new", int8_calibration=[])
    assert not (tmp_path / "new").exists()


def test_a_folder_without_a_complete_export_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no model.onnx; export_onnx writes it"):
        OnnxTower(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="does not hold an exported tower"):
        OnnxTower(tmp_path)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match=r"model.onnx is damaged"):
        OnnxTower(tmp_path)


@pytest.mark.slow
def test_variants_are_compared_on_the_same_pictures(planted: Callable[..., Samples]) -> None:
    samples = planted(20)
    tower = build_tower("test_resnet", {t: list(names) for t, names in samples.classes.items()})
    rows = compare_variants(tower, samples, calibration=pictures(20), batch_sizes=(2,), repeats=1)
    by_name = {row.name: row for row in rows}
    assert list(by_name) == [
        "float32",
        "bfloat16",
        "pruned 20%",
        "factorised 95%",
        "onnx float32",
        "onnx int8",
    ]
    assert samples.root is not None
    paths = [samples.root / image for image in samples.images]
    for target, probabilities in tower.predict_proba(paths).items():
        labels = samples.targets[target]
        accuracy = (probabilities.argmax(axis=1) == labels)[labels >= 0].mean()
        for name in ("float32", "onnx float32"):
            assert by_name[name].accuracy[target] == pytest.approx(accuracy)
    assert by_name["onnx int8"].size_mb < 0.5 * by_name["float32"].size_mb
    assert by_name["factorised 95%"].size_mb < by_name["float32"].size_mb
    assert all(list(row.pictures_per_s) == [2] and row.pictures_per_s[2] > 0 for row in rows)


def test_samples_with_other_classes_are_refused(
    tower: VisionTower, planted: Callable[..., Samples]
) -> None:
    with pytest.raises(ValueError, match="must have the targets and classes of the tower"):
        compare_variants(tower, planted(2), calibration=pictures(2))
