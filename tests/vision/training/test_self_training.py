"""Towers label pictures that nobody has labelled, and one more learns from all."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.planted import plain_picture
from tests.vision.planted_towers import mean_colour_tower
from vision.config import PseudoLabelConfig, VisionConfig
from vision.dataset import Samples
from vision.errors import InvalidArgumentError
from vision.finetuning import FinetuneResult, check_samples, finetune_run
from vision.training.run import TrainingRun
from vision.training.self_training import self_train

CLASSES = {"colour": ["red", "blue"]}
# Labelled: red and blue. Without a label: clear red, clear blue, and one of which towers disagree.
COLOURS = [(250, 0, 0), (0, 0, 250), (240, 10, 0), (0, 10, 240), (200, 200, 0)]


class Trainer:
    """Remembers what it was asked to learn from, and returns towers that separate red from blue.

    Args:
        losses: Validation loss of each run, in order; None for runs without validation.
    """

    def __init__(self, losses: list[float] | None) -> None:
        self.losses, self.runs = losses, []

    def __call__(self, samples: Samples, name: str, seed: int) -> FinetuneResult:
        number = len(self.runs)
        self.runs.append((name, seed, samples))
        green = 20.0 if number % 2 else -20.0  # about green, every second tower says the opposite
        weights = {"heads.0.weight": [[9, green, 0], [0, 0, 9]], "heads.0.bias": [0, 0]}
        tower = mean_colour_tower(CLASSES, {key: torch.tensor(w) for key, w in weights.items()})
        metrics = {"loss": self.losses[number]} if self.losses is not None else {}
        return FinetuneResult(tower, metrics, number, ())


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    for row, colour in enumerate(COLOURS):
        plain_picture(colour).save(tmp_path / f"{row}.png")
    return Samples(
        images=[Path("0.png"), Path("1.png")],
        targets={"colour": np.array([0, 1])},
        classes=CLASSES,
        root=tmp_path,
        unlabelled=[Path(f"{row}.png") for row in (2, 3, 4)],
    )


def test_a_student_learns_from_what_all_members_are_sure_of(samples: Samples) -> None:
    trainer = Trainer([0.5, 0.4, 0.3])
    config = PseudoLabelConfig(members=2, confidence=0.9)
    result = self_train(trainer, samples, config, seed=7)
    assert [(name, seed) for name, seed, _ in trainer.runs] == [
        ("member-0", 7),
        ("member-1", 8),
        ("student", 7),
    ]
    assert all(part is samples for _, _, part in trainer.runs[:2])
    taught = trainer.runs[2][2]
    assert [str(image) for image in taught.images] == ["0.png", "1.png", "2.png", "3.png"]
    assert taught.targets["colour"].tolist() == [0, 1, 0, 1]
    assert result.metrics == {"loss": 0.3}


def test_one_tower_alone_is_surer_than_two_that_disagree(samples: Samples) -> None:
    trainer = Trainer(None)
    result = self_train(trainer, samples, PseudoLabelConfig(confidence=0.9), seed=0)
    assert len(trainer.runs[1][2]) == 5, "it labels the picture of which two disagree"
    assert result.epochs == 1, "without validation pictures the student is returned"


def test_a_student_that_is_worse_on_validation_is_left_out(
    samples: Samples, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    trainer = Trainer([0.5, 0.4, 0.6])
    result = self_train(trainer, samples, PseudoLabelConfig(members=2), seed=0)
    assert (result.metrics, result.epochs) == ({"loss": 0.4}, 1)
    assert "validation loss 0.6 with them, 0.4 without: they are left out" in caplog.text


def test_with_no_sure_label_the_best_member_is_returned(
    samples: Samples, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Trainer([0.5, 0.4])
    unsure = replace(samples, unlabelled=[Path("4.png")])
    result = self_train(trainer, unsure, PseudoLabelConfig(members=2, confidence=1), seed=0)
    assert (len(trainer.runs), result.epochs) == (2, 1)
    assert "0 of 1 unlabelled pictures got a label; lower confidence" in caplog.text


def test_pictures_that_cannot_be_read_are_reported(samples: Samples, tmp_path: Path) -> None:
    (tmp_path / "3.png").write_bytes(b"damaged")
    result = self_train(Trainer(None), samples, PseudoLabelConfig(), seed=0)
    assert [str(one.image) for one in result.rejected] == ["3.png"]


def test_what_cannot_be_is_refused_before_anything_is_trained(
    samples: Samples, tmp_path: Path
) -> None:
    config = VisionConfig(pretrained=False, pseudo_labels=PseudoLabelConfig())
    with pytest.raises(InvalidArgumentError, match="needs pictures without a label"):
        check_samples(replace(samples, unlabelled=()), config, None)
    run = TrainingRun(tmp_path, 0, torch.device("cpu"))
    with pytest.raises(InvalidArgumentError, match="unset it to tune"):
        finetune_run(samples, config, run, callbacks=[object()])  # type: ignore[list-item]


@pytest.mark.slow
def test_a_run_with_pseudo_labels_ends_as_an_uninterrupted_one_and_is_one_tower(
    samples: Samples, tmp_path: Path
) -> None:
    config = VisionConfig(
        backbone="test_resnet",
        pretrained=False,
        size=32,
        dim=8,
        epochs=2,
        batch_size=2,
        precision="32-true",
        pseudo_labels=PseudoLabelConfig(members=2, confidence=0.01),
    )
    run = TrainingRun(tmp_path / "run", 0, torch.device("cpu"))
    result = finetune_run(samples, config, run, validation=samples)
    assert {path.name for path in run.workdir.iterdir()} == {"member-0", "member-1", "student"}
    again = finetune_run(samples, config, run, validation=samples)
    for name, value in result.tower.state_dict().items():
        torch.testing.assert_close(again.tower.state_dict()[name], value)
