"""The shop of ``mug_shop`` on disk, and a runtime for stages."""

from pathlib import Path

import pytest

from recsys.data.dataset import Dataset
from recsys.training.stages import Runtime, Workspace
from tests.recsys.training.mug_shop import draw_pictures, mug_shop


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the shop's pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    draw_pictures(folder)
    return folder


@pytest.fixture(scope="session")
def dataset(root: Path) -> Dataset:
    """The tables of the shop."""
    return mug_shop(root)


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A runtime on the processor with a workspace of its own."""
    return Runtime(Workspace(tmp_path / "stages", announce=lambda name: None), "cpu", seed=3)
