"""A served tower answers as the tower that it was written from."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vision.deploy.served import (
    GRAPH_FILE,
    INT8_FILE,
    measure_parity,
    serve_backbone,
    write_backbone,
)
from vision.errors import CheckpointError
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower

AVX2 = {"avx2": True}
VNNI = {"avx2": True, "avx512_vnni": True}


def pictures(count: int, seed: int = 0) -> list[Image.Image]:
    small = np.random.default_rng(seed).integers(0, 256, (count, 6, 5, 3), dtype=np.uint8)
    return [Image.fromarray(pixels).resize((50, 40)) for pixels in small]


@pytest.fixture(scope="module")
def tower() -> VisionTower:
    """Return a tower with the ReLU6 of EfficientNet-Lite and the statistics of its features."""
    torch.manual_seed(0)
    backbone = build_backbone("tf_efficientnet_lite0", size=32)
    tower = VisionTower(backbone, dim=16, classes={"kind": ["a", "b", "c"]}, dropout=0.5)
    tower.train()
    with torch.no_grad():
        for _ in range(20):
            tower(torch.randn(16, 3, 32, 32))
    return tower.eval()


@pytest.fixture(scope="module")
def folder(tower: VisionTower, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    write_backbone(tower, folder, int8_calibration=pictures(40, seed=1))
    return folder


def test_the_float32_graph_has_the_embeddings_and_logits_of_the_tower(
    tower: VisionTower, folder: Path
) -> None:
    served, images = serve_backbone(tower, folder), pictures(9)
    np.testing.assert_allclose(served.embed(images), tower.embed(images), atol=1e-5)
    for views in ("flip", "crops"):
        expected, got = (one.predict_proba(images, views=views) for one in (tower, served))
        np.testing.assert_allclose(got["kind"], expected["kind"], atol=1e-5)
    found = measure_parity(tower, served, images)
    assert found.cosine == pytest.approx(1, abs=1e-5)
    assert found.same_class == {"kind": 1.0}
    assert found.n_pictures == 9


def test_int8_is_nearly_the_same_and_does_not_depend_on_the_batch(
    tower: VisionTower, folder: Path
) -> None:
    served, images = serve_backbone(tower, folder, int8=True, capabilities=VNNI), pictures(30)
    if not torch.cpu.get_capabilities().get("avx512_vnni", False):
        pytest.skip("the sums of an int8 graph overflow on this processor")
    found = measure_parity(tower, served, images)
    assert found.cosine > 0.9
    assert found.lowest_cosine < 1 - 1e-6, "something else than float32 ran"
    alone = np.concatenate([served.embed([one]) for one in images])
    np.testing.assert_allclose(served.embed(images), alone, atol=1e-5)


def test_where_int8_sums_overflow_the_float32_graph_runs_and_a_warning_says_so(
    tower: VisionTower, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="vision"):
        served = serve_backbone(tower, folder, int8=True, capabilities=AVX2)
    assert f"{INT8_FILE} is left out" in caplog.text
    assert measure_parity(tower, served, pictures(5)).lowest_cosine == pytest.approx(1, abs=1e-5)


def test_a_graph_of_another_tower_has_a_parity_that_shows_it(
    tower: VisionTower, folder: Path
) -> None:
    other = VisionTower(
        build_backbone("tf_efficientnet_lite0", size=32), dim=16, classes=tower.classes
    )
    mixed = serve_backbone(other.eval(), folder)
    found = measure_parity(tower, mixed, pictures(5))
    assert found.cosine < 0.9


def test_int8_of_an_earlier_tower_does_not_stay(tower: VisionTower, tmp_path: Path) -> None:
    (tmp_path / INT8_FILE).write_bytes(b"of another tower")
    write_backbone(tower, tmp_path)
    assert (tmp_path / GRAPH_FILE).exists()
    with pytest.raises(CheckpointError, match=INT8_FILE):
        serve_backbone(tower, tmp_path, int8=True)


def test_no_picture_is_an_error(tower: VisionTower, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="int8_calibration must have at least 1 picture"):
        write_backbone(tower, tmp_path, int8_calibration=[])
    with pytest.raises(ValueError, match="images must have at least 1 picture"):
        measure_parity(tower, serve_backbone(tower, folder), [])
