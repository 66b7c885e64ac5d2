"""A contact sheet shows pictures as they are, and as the configured augmentation makes them."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from vision.config import VisionConfig
from vision.dataset import Samples
from vision.errors import TrainingError
from vision.training.preview import GAP, HEADER, contact_sheet

CONFIG = VisionConfig(size=32, augmentation="none")


def tiles(
    samples: Samples, config: VisionConfig, rows: int, columns: int, seed: int = 0
) -> NDArray[np.float64]:
    """Return the sheet's tiles, (rows, columns, size, size, 3)."""
    sheet = contact_sheet(samples, config, rows=rows, columns=columns, seed=seed)
    side = (config.train_size or config.size) + GAP
    assert sheet.size == (columns * side + GAP, rows * side + GAP + HEADER)
    pixels = np.asarray(sheet)[HEADER + GAP :, GAP:].astype(float)
    return pixels.reshape(rows, side, columns, side, 3).swapaxes(1, 2)[:, :, :-GAP, :-GAP]


def test_without_augmentation_every_column_is_the_stored_picture(
    planted: Callable[..., Samples],
) -> None:
    shown = tiles(planted(12), CONFIG, rows=4, columns=3)
    # They are resized by two filters.
    assert np.abs(shown[:, 1:] - shown[:, :1]).mean() < 3
    assert np.abs(shown[0, 0] - shown[1, 0]).mean() > 3, "rows are different pictures"
    np.testing.assert_array_equal(shown[:, 1], shown[:, 2])


def test_each_column_is_augmented_differently(planted: Callable[..., Samples]) -> None:
    samples = planted(12)
    strong = CONFIG.model_copy(update={"augmentation": "strong", "train_size": 24})
    shown = tiles(samples, strong, rows=4, columns=3)
    assert np.abs(shown[:, 1] - shown[:, 2]).mean(axis=(1, 2, 3)).min() > 3
    np.testing.assert_array_equal(shown, tiles(samples, strong, rows=4, columns=3))
    assert np.abs(shown - tiles(samples, strong, rows=4, columns=3, seed=1)).mean() > 3


def test_the_policy_is_shown_as_well(planted: Callable[..., Samples]) -> None:
    shown = tiles(planted(4), CONFIG.model_copy(update={"policy": "randaugment"}), 4, 3)
    assert np.abs(shown[:, 1] - shown[:, 2]).mean() > 3


def test_the_header_is_written_above_the_pictures(planted: Callable[..., Samples]) -> None:
    header = np.asarray(contact_sheet(planted(8), CONFIG))[: HEADER - GAP]
    assert header.min() < 100
    assert header.max() == 255


def test_pictures_that_cannot_be_read_are_left_out(planted: Callable[..., Samples]) -> None:
    samples = planted(3)
    assert samples.root is not None
    (samples.root / "1.png").write_bytes(b"not a picture")
    assert tiles(samples, CONFIG, rows=2, columns=2).shape[0] == 2
    for row in range(3):
        (samples.root / f"{row}.png").write_bytes(b"not a picture")
    with pytest.raises(TrainingError, match="none of 3 pictures can be read"):
        contact_sheet(samples, CONFIG)


def test_an_empty_sheet_is_refused(planted: Callable[..., Samples]) -> None:
    for rows, columns in ((0, 2), (1, 1)):
        with pytest.raises(ValueError, match=f"1 and columns 2, got {rows} and {columns}"):
            contact_sheet(planted(2), CONFIG, rows=rows, columns=columns)
