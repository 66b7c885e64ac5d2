"""A small generated shop and a bundle trained on it, made once per test session."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from recsys.config import TrainConfig, load_config
from recsys.data.synthetic import Shop, generate_shop
from recsys.pipeline import Run, train

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
backbone = "resnet10t"
size = 32
dim = 32
epochs = 2
[text]
hidden = 32
epochs = 2
[fusion]
dim = 32
hidden = 64
epochs = 5
[users]
width = 16
heads = 2
depth = 1
history_length = 16
histories_per_user = 2
epochs = 2
[ranker]
hidden = 16
n_candidates = 50
epochs = 3
"""


@pytest.fixture(scope="session", autouse=True)
def _threads() -> Iterator[None]:
    """Keep torch to one thread: two tests that fight for two cores take ten times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A generated shop of 100 items and 150 shoppers over 8 months."""
    folder = tmp_path_factory.mktemp("tiny") / "shop"
    end = datetime(2026, 1, 1, tzinfo=UTC)
    return generate_shop(folder, end=end, n_items=100, n_users=150, months=8, seed=1)


@pytest.fixture(scope="session")
def tiny_config(tiny_shop: Shop) -> TrainConfig:
    """Everything as small as it can be and still learn a little."""
    path = tiny_shop.folder / "tiny.toml"
    path.write_text(CONFIG)
    return load_config(path)


@pytest.fixture(scope="session")
def tiny_run(tiny_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A training run on the tiny shop, with both ablations."""
    return train(tiny_config, tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run: Run) -> Path:
    """The bundle of the tiny shop."""
    return tiny_run.bundle
