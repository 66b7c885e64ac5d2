from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image

from recsys.config import AlignmentConfig, FusionConfig
from recsys.models.fusion import ItemFusion, build_fusion
from recsys.training.alignment import Towers, align, align_towers, load_fusion, load_towers
from recsys.training.samples import Captioned
from text.config import TextConfig
from text.networks.build import build_encoder
from vision.dataset import Samples
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower
from vision.training.callbacks import build_callbacks
from vision.training.run import TrainingRun

COLOURS = {"red": (200, 30, 30), "green": (30, 160, 30), "blue": (30, 30, 200), "grey": (128,) * 3}
TITLES = [f"{colour} {thing}" for colour in COLOURS for thing in ("mug", "jug")]


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Captioned:
    """Return two pictures of each title: a colour in the upper half, or for jugs in the lower."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    images, texts = [], []
    for n, title in enumerate(TITLES * 2):
        colour, thing = title.split()
        pixels = np.full((32, 32, 3), 255, dtype=np.uint8)
        half = slice(0, 16) if thing == "mug" else slice(16, 32)
        pixels[half] = np.clip(COLOURS[colour] + rng.normal(0, 8, (16, 32, 3)), 0, 255)
        images.append(folder / f"{n}.png")
        Image.fromarray(pixels).save(images[-1])
        texts.append(title)
    labels = np.array(["jug" in text for text in texts], dtype=np.int64)
    pictures = Samples(images, {"thing": labels}, {"thing": ("mug", "jug")})
    return Captioned(pictures, texts, np.array([TITLES.index(text) for text in texts]))


def towers() -> Towers:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vision = VisionTower(
            build_backbone("test_resnet", size=32), dim=16, classes={"thing": ("mug", "jug")}
        )
    text = build_encoder(TextConfig(hidden=24, vocab_size=300), TITLES, seed=0)
    return Towers(vision.eval(), text.eval())


def fusion() -> ItemFusion:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_fusion(FusionConfig(dim=16, hidden=16, dropout=0.1), {"image": 16, "text": 24})


def config(**changes: Any) -> AlignmentConfig:
    small = {
        "epochs": 1,
        "batch_size": 16,
        "learning_rate": 1e-2,
        "picture_learning_rate": 5e-3,
        "augmentation": "none",
        "word_dropout": 0.0,
        "precision": "32-true",
    }
    return AlignmentConfig.model_validate({**small, **changes})


def aligned(
    captioned: Captioned,
    chosen: AlignmentConfig,
    folder: Path,
    seed: int = 0,
    cache_gb: float = 1.0,
) -> tuple[Towers, ItemFusion]:
    trained, space = towers(), fusion()
    run = TrainingRun(folder, seed, torch.device("cpu"))
    align(captioned, trained, space, chosen, run, cache_gb=cache_gb)
    return trained, space


def separation(captioned: Captioned, trained: Towers) -> float:
    """Return how well similarities of titles explain those of their pictures: r squared."""
    seen = trained.vision.embed(captioned.pictures.images)
    read = trained.text.embed(captioned.texts)
    upper = np.triu_indices(len(seen), 1)
    return float(np.corrcoef((seen @ seen.T)[upper], (read @ read.T)[upper])[0, 1] ** 2)


def weights(trained: Towers, space: ItemFusion) -> torch.Tensor:
    parts = (*trained, space)
    return torch.cat([values.ravel().double() for p in parts for values in p.state_dict().values()])


def test_pictures_and_titles_become_alike_and_the_classes_stay_known(
    captioned: Captioned, tmp_path: Path
) -> None:
    before = separation(captioned, towers())
    trained, _ = aligned(captioned, config(epochs=30), tmp_path)
    assert not any(module.training for part in trained for module in part.modules())
    assert separation(captioned, trained) > before + 0.3
    predicted = trained.vision.predict_proba(captioned.pictures.images)["thing"].argmax(axis=1)
    assert (predicted == captioned.pictures.targets["thing"]).mean() > 0.9


def test_pictures_in_a_file_teach_the_same_as_those_in_memory(
    captioned: Captioned, tmp_path: Path
) -> None:
    in_memory = aligned(captioned, config(), tmp_path / "memory")
    on_disk = aligned(captioned, config(), tmp_path / "disk", cache_gb=0.0)
    assert torch.equal(weights(*in_memory), weights(*on_disk))
    assert not list(tmp_path.rglob("*.pixels"))


def test_pictures_that_share_one_title_are_not_contrasted(
    captioned: Captioned, tmp_path: Path
) -> None:
    alike = captioned._replace(groups=np.zeros(len(captioned.texts), dtype=np.int64))
    chosen = config(epochs=2, head_weight=0.0, weight_decay=0.0)
    start = towers()
    same = [p.detach().clone() for p in start.text.parameters()]
    align(alike, start, fusion(), chosen, TrainingRun(tmp_path, 0, torch.device("cpu")))
    for one, other in zip(start.text.parameters(), same, strict=True):
        torch.testing.assert_close(one.detach(), other)


def test_a_resumed_run_ends_as_an_uninterrupted_one(
    captioned: Captioned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = config(epochs=2, augmentation="light", word_dropout=0.3)
    whole = aligned(captioned, chosen, tmp_path / "whole")

    class PowerCutError(Exception):
        pass

    class Interrupt(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.current_epoch == 1:
                raise PowerCutError

    with monkeypatch.context() as patched:
        patched.setattr(
            "recsys.training.loop.build_callbacks",
            lambda *arguments: [Interrupt(), *build_callbacks(*arguments)],
        )
        with pytest.raises(PowerCutError):
            aligned(captioned, chosen, tmp_path / "parts")
    resumed = aligned(captioned, chosen, tmp_path / "parts")
    assert torch.equal(weights(*resumed), weights(*whole))


def test_the_written_towers_find_the_picture_of_a_title(
    captioned: Captioned, tmp_path: Path
) -> None:
    sizes = FusionConfig(dim=16, hidden=16, dropout=0.1)
    run = TrainingRun(tmp_path / "checkpoints", 0, torch.device("cpu"))
    trained = towers()
    assert found(captioned, trained, fusion()) < 0.5
    align_towers(captioned, trained, config(epochs=30), sizes, tmp_path, run)
    loaded = load_towers(tmp_path)
    for one, other, material in zip(
        loaded, trained, (captioned.pictures.images, captioned.texts), strict=True
    ):
        np.testing.assert_allclose(one.embed(material), other.embed(material), atol=1e-6)
    assert found(captioned, loaded, load_fusion(tmp_path, loaded, sizes)) > 0.9


@torch.no_grad()
def found(captioned: Captioned, trained: Towers, space: ItemFusion) -> float:
    """Return the share of titles whose nearest picture is of an item with that title."""
    seen = torch.from_numpy(trained.vision.embed(captioned.pictures.images))
    read = torch.from_numpy(trained.text.embed(TITLES))
    cosines = space.eval().encode({"text": read}) @ space.encode({"image": seen}).T
    return float((captioned.groups[cosines.argmax(dim=1)] == np.arange(len(TITLES))).mean())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda c: c._replace(texts=c.texts[:3]), r"one entry per picture \(16\), got 3"),
        (lambda c: c._replace(groups=c.groups[:5]), r"one entry per picture \(16\).*\(5,\)"),
        (
            lambda c: c._replace(pictures=replace(c.pictures, classes={"thing": ("mug", "cup")})),
            "the tower's classes",
        ),
        (
            lambda c: Captioned(c.pictures.take(np.array([0])), c.texts[:1], c.groups[:1]),
            "at least 2 pictures with a text, got 1",
        ),
    ],
)
def test_texts_or_classes_that_do_not_fit_are_an_error(
    captioned: Captioned, changed: Any, message: str, tmp_path: Path
) -> None:
    run = TrainingRun(tmp_path, 0, torch.device("cpu"))
    with pytest.raises(ValueError, match=message):
        align(changed(captioned), towers(), fusion(), config(), run)
