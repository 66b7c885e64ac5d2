"""What a run reads: pictures at two sizes, the classes' counts, the order of rows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vision.config import ImbalanceConfig, VisionConfig
from vision.dataset import EpochShuffle, Samples
from vision.errors import TrainingError
from vision.training.data import (
    TrainingData,
    build_order,
    class_counts,
    decode_data,
    steps_per_epoch,
)
from vision.training.imbalance import EpochDraw
from vision.training.run import TrainingRun
from vision.transforms import Preprocess

CONFIG = VisionConfig(size=32, train_size=20, batch_size=4)


def decoded(
    samples: Samples, validation: Samples | None, folder: Path, **changes: float
) -> tuple[TrainingData, list[Path]]:
    config = CONFIG.model_copy(update=changes)
    run = TrainingRun(folder, 0, torch.device("cpu"))
    data = decode_data(samples, validation, Preprocess(size=32), config, run)
    return data, sorted(folder.iterdir())


def test_training_pictures_are_stored_larger_than_crops_and_validation_at_its_size(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    data, files = decoded(planted(8), planted(4), tmp_path)
    assert data.train.pictures.shape == (8, 3, 23, 23)
    assert data.validation is not None
    assert data.validation.pictures.shape == (4, 3, 32, 32)
    assert files == []


def test_pictures_beyond_the_cache_are_in_files_without_a_name(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    in_memory, _ = decoded(planted(8), planted(4), tmp_path)
    data, files = decoded(planted(8), planted(4), tmp_path, cache_gb=0.0)
    assert torch.equal(data.train.pictures, in_memory.train.pictures)
    assert str(tmp_path) in Path("/proc/self/maps").read_text()
    assert files == []


def test_classes_are_counted_over_readable_pictures_with_a_label(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    samples = planted(10)
    assert samples.root is not None
    (samples.root / "4.png").write_bytes(b"")
    data, _ = decoded(samples, None, tmp_path)
    counts = class_counts(data.train, samples.classes)
    assert counts["colour"].tolist() == [2, 3, 2, 2]
    known = np.delete(samples.targets["side.of it"], 4)
    assert counts["side.of it"].sum() == (known >= 0).sum()


def test_the_order_follows_the_sampling(planted: Callable[..., Samples], tmp_path: Path) -> None:
    samples = planted(12)
    data, _ = decoded(samples, None, tmp_path)
    targets = [*samples.classes]
    assert isinstance(build_order(data.train, CONFIG, targets, 0), EpochShuffle)
    balanced = ImbalanceConfig(sampling="balanced", target="colour")
    config = CONFIG.model_copy(update={"imbalance": balanced})
    order = build_order(data.train, config, targets, 0)
    assert isinstance(order, EpochDraw)
    assert len(order) == 12


@pytest.mark.parametrize(("pictures", "accumulate", "steps"), [(12, 1, 3), (14, 2, 2), (3, 1, 1)])
def test_steps_are_whole_batches_over_what_is_accumulated(
    pictures: int, accumulate: int, steps: int, planted: Callable[..., Samples], tmp_path: Path
) -> None:
    data, _ = decoded(planted(pictures), None, tmp_path)
    config = CONFIG.model_copy(update={"accumulate": accumulate})
    assert steps_per_epoch(data.train, config) == steps


def test_one_readable_picture_is_too_few(planted: Callable[..., Samples], tmp_path: Path) -> None:
    samples = planted(2)
    assert samples.root is not None
    (samples.root / "1.png").write_bytes(b"")
    with pytest.raises(TrainingError, match="at least 2 readable pictures, got 1"):
        decoded(samples, None, tmp_path)
