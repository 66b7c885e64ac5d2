"""A tower returns unit-length embeddings and classes, which do not depend on the batch."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.planted import plain_picture
from tests.vision.planted_towers import mean_colour_tower
from vision.batches import prepared_batches
from vision.images import ImageError
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower

CLASSES = {"level 0": ["fruit", "milk"], "a.b": ["red", "green", "blue"]}


@pytest.fixture(scope="module")
def tower() -> VisionTower:
    torch.manual_seed(0)
    tower = VisionTower(build_backbone("resnet10t", size=32), dim=16, classes=CLASSES, dropout=0.5)
    # Batch norms need the statistics of a trained network, or all embeddings would be the same.
    tower.train()
    with torch.no_grad():
        for _ in range(20):
            tower(torch.randn(16, 3, 32, 32))
    return tower.eval()


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (9, 6, 5, 3), dtype=np.uint8)
    return [Image.fromarray(pixels).resize((50, 40)) for pixels in small]


def test_outputs_have_unit_length_embeddings_and_logits_of_every_target(tower: VisionTower) -> None:
    images = torch.randn(5, 3, 32, 32)
    output = tower.outputs(images)
    assert output.embeddings.shape == (5, 16)
    torch.testing.assert_close(output.embeddings.norm(dim=1), torch.ones(5))
    assert {name: tuple(x.shape) for name, x in output.logits.items()} == {
        "level 0": (5, 2),
        "a.b": (5, 3),
    }
    torch.testing.assert_close(tower(images), output.embeddings)
    torch.testing.assert_close(tower.logits(images)["a.b"], output.logits["a.b"])


def test_a_wrong_shape_is_refused(tower: VisionTower) -> None:
    with pytest.raises(ValueError, match=r"must have shape \(B, 3, 32, 32\), got \(3, 32, 32\)"):
        tower(torch.zeros(3, 32, 32))
    with pytest.raises(ValueError, match=r"got \(2, 1, 32, 32\)"):
        tower(torch.zeros(2, 1, 32, 32))


def test_embed_does_not_depend_on_the_batch(
    tower: VisionTower, pictures: list[Image.Image]
) -> None:
    whole = tower.embed(pictures, batch_size=9)
    assert whole.dtype == np.float32
    for batch_size in (1, 4):
        np.testing.assert_allclose(tower.embed(pictures, batch_size=batch_size), whole, atol=1e-5)
    assert np.linalg.norm(whole[0] - whole[1]) > 0.05


def test_bytes_paths_and_images_have_the_same_embedding(
    tower: VisionTower, pictures: list[Image.Image], tmp_path: Path
) -> None:
    buffer = io.BytesIO()
    pictures[0].save(buffer, "PNG")
    (tmp_path / "0.png").write_bytes(buffer.getvalue())
    got = tower.embed([pictures[0], buffer.getvalue(), tmp_path / "0.png"])
    np.testing.assert_allclose(got, got[:1].repeat(3, axis=0), atol=1e-6)


def test_batches_are_read_at_most_two_ahead_from_an_iterator(
    tower: VisionTower, pictures: list[Image.Image]
) -> None:
    def endless() -> Iterator[Image.Image]:
        yield from pictures
        raise AssertionError("read to the end before the first batch was computed")

    batches = prepared_batches(endless(), tower.preprocess, batch_size=4)
    assert next(batches).shape == (4, 3, 32, 32)


def test_predict_proba_returns_probabilities(
    tower: VisionTower, pictures: list[Image.Image]
) -> None:
    got = tower.predict_proba(pictures, batch_size=4)
    assert got["level 0"].shape == (9, 2)
    np.testing.assert_allclose(got["a.b"].sum(axis=1), np.ones(9), rtol=1e-5)


def test_predict_returns_the_names_of_the_most_probable_classes() -> None:
    weights = {"heads.0.weight": torch.eye(3), "heads.0.bias": torch.zeros(3)}
    tower = mean_colour_tower({"colour": ["red", "green", "blue"]}, weights)
    pictures = [plain_picture(colour) for colour in ((9, 9, 200), (200, 9, 9), (9, 200, 9))]
    assert tower.predict(pictures, batch_size=2)["colour"].tolist() == ["blue", "red", "green"]


def test_no_images_give_no_rows(tower: VisionTower) -> None:
    assert tower.embed([]).shape == (0, 16)
    assert {name: labels.shape for name, labels in tower.predict([]).items()} == {
        "level 0": (0,),
        "a.b": (0,),
    }
    assert {name: rows.shape for name, rows in tower.predict_proba([]).items()} == {
        "level 0": (0, 2),
        "a.b": (0, 3),
    }


def test_an_unreadable_image_is_named_by_its_position(
    tower: VisionTower, pictures: list[Image.Image]
) -> None:
    with pytest.raises(ImageError, match="image 2: image is empty"):
        tower.embed([*pictures[:2], b""], batch_size=2)


def test_a_tower_in_training_mode_stays_in_it(
    tower: VisionTower, pictures: list[Image.Image]
) -> None:
    wanted = tower.embed(pictures)
    tower.train()
    try:
        np.testing.assert_array_equal(tower.embed(pictures), wanted)
        assert tower.training
    finally:
        tower.eval()


def test_bfloat16_embeddings_are_close(tower: VisionTower, pictures: list[Image.Image]) -> None:
    exact = tower.embed(pictures)
    rough = tower.embed(pictures, precision="bf16-mixed")
    assert rough.dtype == np.float32
    assert 0 < np.abs(exact - rough).max() < 0.05


def test_a_batch_size_of_0_is_refused(tower: VisionTower) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        tower.embed([], batch_size=0)
