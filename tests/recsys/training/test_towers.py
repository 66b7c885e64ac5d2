import json
from pathlib import Path

import numpy as np
import pytest
import torch

import text.checkpoint
import text.finetuning
import vision.checkpoint
import vision.dataset
import vision.finetuning
from recsys.data.dataset import Dataset
from recsys.training.samples import picture_samples, text_samples
from recsys.training.stages import Runtime
from recsys.training.towers import (
    METRICS,
    TOWER,
    TrainedTowers,
    embed_dataset,
    finetune_text,
    finetune_vision,
    load_embeddings,
)
from tests.recsys.training.mug_shop import COLOURS, IMAGES, LABELS, TITLES
from text.config import TextConfig
from text.encoder import TextEncoder
from text.networks.build import build_encoder
from vision.config import VisionConfig
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower

VISION = VisionConfig(
    backbone="test_resnet", pretrained=False, size=32, dim=8, epochs=1, batch_size=4
)
TEXT = TextConfig(hidden=16, vocab_size=300, epochs=1, batch_size=4)


@pytest.fixture(scope="module")
def tower() -> VisionTower:
    torch.manual_seed(0)
    return VisionTower(build_backbone("test_resnet", size=32), dim=8, classes=LABELS.classes).eval()


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return build_encoder(TEXT, [title for title in TITLES if title], seed=0)


def test_every_item_and_training_photo_has_its_embedding_in_its_own_row(
    dataset: Dataset,
    root: Path,
    tower: VisionTower,
    encoder: TextEncoder,
    runtime: Runtime,
    tmp_path: Path,
) -> None:
    embed_dataset(dataset, TrainedTowers(tower, encoder, None, ()), tmp_path, runtime)
    modalities, photos = load_embeddings(tmp_path)
    texts = ["red mug. for tea", None, "blue mug", "green jug", "a thing", "blue jug"]
    assert modalities.present["text"].tolist() == [one is not None for one in texts]
    assert modalities.present["image"].tolist() == [one is not None for one in IMAGES]
    for row in range(6):
        text_row, image_row = (modalities.embeddings[name][row] for name in ("text", "image"))
        wanted = encoder.embed([texts[row]])[0] if texts[row] else np.zeros(16)
        np.testing.assert_allclose(text_row, wanted, atol=1e-4)
        wanted = tower.embed([root / IMAGES[row]])[0] if IMAGES[row] else np.zeros(8)
        np.testing.assert_allclose(image_row, wanted, atol=1e-4)
    assert photos is not None
    wanted = tower.embed([root / f"p{n}.png" for n in (0, 2)])  # of the train split
    np.testing.assert_allclose(photos, wanted, atol=1e-4)


def test_without_a_tower_there_is_no_such_modality(
    dataset: Dataset, tower: VisionTower, encoder: TextEncoder, runtime: Runtime, tmp_path: Path
) -> None:
    for name, towers in (("text", (None, encoder)), ("image", (tower, None))):
        folder = tmp_path / name
        folder.mkdir()
        embed_dataset(dataset, TrainedTowers(*towers, None, ()), folder, runtime)
        modalities, photos = load_embeddings(folder)
        assert list(modalities.embeddings) == list(modalities.present) == [name]
        assert (photos is None) == (name == "text")


def test_the_vision_tower_learns_from_item_pictures_and_training_photos_alone(
    dataset: Dataset, root: Path, runtime: Runtime, tmp_path: Path
) -> None:
    finetune_vision(picture_samples(dataset, LABELS), VISION, tmp_path, runtime)
    names = ["0.png", "1.png", "3.png", "4.png", "p0.png", "p2.png"]
    training = vision.dataset.Samples(
        [root / name for name in names],
        {"colour": np.array([0, 1, 2, -1, 0, 1])},
        {"colour": COLOURS},
    )
    validation = vision.dataset.Samples(
        [root / "p1.png", root / "p4.png"], {"colour": np.array([2, 0])}, {"colour": COLOURS}
    )
    wanted = vision.finetuning.finetune(
        training,
        VISION,
        validation=validation,
        workdir=tmp_path / "by hand",
        seed=3,
        device="cpu",
    )
    saved = vision.checkpoint.load(tmp_path / TOWER)
    assert saved.classes == {"colour": COLOURS}
    for name, values in wanted.tower.state_dict().items():
        torch.testing.assert_close(saved.state_dict()[name], values)
    assert json.loads((tmp_path / METRICS).read_text()) == wanted.metrics


def test_the_text_encoder_learns_from_the_samples(
    dataset: Dataset, runtime: Runtime, tmp_path: Path
) -> None:
    samples = text_samples(dataset.items, LABELS, np.array([[0, 2], [3, 4]]))
    finetune_text(samples, TEXT, tmp_path, runtime)
    wanted = text.finetuning.finetune(
        samples, TEXT, workdir=tmp_path / "by hand", seed=3, device="cpu"
    )
    saved = text.checkpoint.load(tmp_path / TOWER)
    for name, values in wanted.encoder.state_dict().items():
        torch.testing.assert_close(saved.state_dict()[name], values)
    assert json.loads((tmp_path / METRICS).read_text()) == wanted.metrics
