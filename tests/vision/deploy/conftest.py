"""Picture files for the tests of bulk embedding."""

from pathlib import Path

import pytest

from tests.planted import save_jpeg, save_rotated_jpeg, smooth_picture


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return nine files of two sizes, of which five are JPEGs for the GPU."""
    folder = tmp_path_factory.mktemp("bulk")
    jpegs = [save_jpeg(smooth_picture(row), folder / f"{row}.jpg") for row in range(3)]
    jpegs += [
        save_jpeg(smooth_picture(row, width=90, height=120), folder / f"{row}.jpg")
        for row in (3, 4)
    ]
    others = [
        save_jpeg(smooth_picture(5), folder / "5.png"),
        save_jpeg(smooth_picture(6).convert("L"), folder / "6.jpg"),
        save_jpeg(smooth_picture(7).convert("CMYK"), folder / "7.jpg"),
        save_rotated_jpeg(smooth_picture(8), folder / "8.jpg"),
    ]
    files = [*jpegs, *others]
    return [files[row] for row in (0, 5, 3, 1, 6, 7, 4, 8, 2)]
