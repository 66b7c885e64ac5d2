"""A small generated shop and a bundle trained on it, made once per test session.

Heavy imports are in the fixtures: the process that hands out the tests loads this file as well, and
needs none of them.
"""

import ctypes
import gc
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.made_once import made_once

if TYPE_CHECKING:
    from recsys.config import TrainConfig
    from recsys.data.synthetic import Shop
    from recsys.pipeline import Run

CONFIG = """
name = "tiny"
[data]
items = "items.parquet"
events = "events.parquet"
photos = "photos.parquet"
images_root = "images"
target_kinds = ["purchase", "cart"]
[split]
horizon = "1mo"
n_cuts = 2
[vision]
backbone = "test_resnet"
pretrained = false
size = 32
dim = 32
epochs = 2
[text]
hidden = 32
epochs = 2
[fusion]
dim = 32
hidden = 64
epochs = 2
[users]
width = 16
heads = 2
depth = 1
history_length = 16
histories_per_user = 2
epochs = 2
[ranker]
kind = "trees"
n_candidates = 50
trees = { trees = 20, min_candidates = 5 }
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first, so that two workers end at nearly the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def _threads() -> Iterator[None]:
    """Keep torch to one thread: two tests that fight for two cores take ten times as long."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def _lasting_objects() -> Iterator[None]:
    """Exclude imported objects from garbage collection, which would visit a million each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module", autouse=True)
def _returned_memory() -> Iterator[None]:
    """Return to the system the memory that a file of tests has freed; glibc would keep it."""
    yield
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this user one without an entry in the user database and without HOME."""

    def nobody(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)


@pytest.fixture(scope="session")
def tiny_shop(tmp_path_factory: pytest.TempPathFactory) -> "Shop":
    """A generated shop of 100 items and 150 shoppers over 8 months."""
    return made_once(tmp_path_factory, "tiny-shop", _tiny_shop)


def _tiny_shop(folder: Path) -> "Shop":
    from recsys.data.synthetic import generate_shop

    end = datetime(2026, 1, 1, tzinfo=UTC)
    shop = generate_shop(folder, end=end, n_items=100, n_users=150, months=8, seed=1)
    (shop.folder / "tiny.toml").write_text(CONFIG)
    return shop


@pytest.fixture(scope="session")
def tiny_config(tiny_shop: "Shop") -> "TrainConfig":
    """Everything as small as it can be and still learn a little."""
    from recsys.config import load_config

    return load_config(tiny_shop.folder / "tiny.toml")


@pytest.fixture(scope="session")
def tiny_run(tiny_config: "TrainConfig", tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """A training run on the tiny shop, with both ablations, in a folder of this worker."""
    from recsys.pipeline import train

    trained = made_once(tmp_path_factory, "tiny-run", lambda folder: _trained(tiny_config, folder))
    out = tmp_path_factory.mktemp("bundles")
    shutil.copytree(trained, out, symlinks=True, dirs_exist_ok=True)
    return train(tiny_config, out)  # finds every stage done


def _trained(config: "TrainConfig", folder: Path) -> Path:
    from recsys.pipeline import train

    train(config, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run: "Run") -> Path:
    """The bundle of the tiny shop."""
    return tiny_run.bundle
