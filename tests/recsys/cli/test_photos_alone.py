"""Labelled pictures without a catalogue, from a folder to a classifier."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from recsys import Bundle
from recsys.curation.annotation import annotate

Ask = Callable[..., Any]
Say = Callable[..., str]
COLOURS = {"Red": (220, 30, 30), "Blue": (30, 30, 220)}
CONFIG = """
name = "colours"
device = "cpu"

[data]
photos = "photos.parquet"

[vision]
backbone = "test_resnet"
pretrained = false
size = 32
dim = 8
epochs = {epochs}
learning_rate = 0.01
augmentation = "none"
"""


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """Return a folder of two colours with 20 pictures each, a class of one picture, and a text."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        folder = tmp_path / "src" / "Colour" / name
        folder.mkdir(parents=True)
        for n in range(20):
            noise = rng.integers(-25, 25, (40, 40, 3))
            pixels = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{n}.png")
    (tmp_path / "src" / "Pattern").mkdir()
    Image.effect_noise((40, 40), 90).save(tmp_path / "src" / "Pattern" / "only.png")
    (tmp_path / "src" / "Colour" / "notes.txt").write_text("not a picture")
    return tmp_path / "src"


def test_a_folder_trains_reports_and_annotates_through_the_same_commands(
    src: Path, tmp_path: Path, ask: Ask, say: Say, refusal: Say
) -> None:
    out = tmp_path / "tables"
    printed = say("import", "folder", src, out)
    assert "folder: 41 photos in" in printed
    assert "photos: 1 of 42 rows: image must be a picture that can be decoded" in printed
    assert "1 of 3 classes have fewer than 5 pictures, such as 'Pattern'" in printed

    config = out / "colours.toml"
    config.write_text(CONFIG.format(epochs=12))
    left_out = ask("check", config, "--out", tmp_path / "quarantine")["left_out"]
    assert left_out == [
        "text: no item has a title or description",
        "training of items: two items with a title or picture are needed, got 0",
        "identification: no items table was given",
        "ranking: no events table was given",
    ]
    bundle = Path(ask("train", config, "--out", tmp_path / "runs")["bundle"])
    levels = {
        row["target"]: row for row in ask("evaluate", bundle, "--config", config)["classification"]
    }
    assert levels["category_2"]["n_photos"] == 4
    assert levels["category_2"]["accuracy"]["mean"] > 0.9

    ask("annotate", bundle, "--photos", out / "photos.parquet", "--out", tmp_path / "found.parquet")
    found = pl.read_parquet(tmp_path / "found.parquet")
    photos = pl.read_parquet(out / "photos.parquet")
    wanted = photos.join(found, on="image", suffix="_found").filter(
        pl.col("category").list.len() > 1
    )
    assert (wanted["category"] == wanted["category_found"]).mean() > 0.9

    table = annotate(Bundle(bundle), [src / "Colour" / "Red" / "0.png"])
    assert table["category"].to_list() == [["Colour", "Red"]]
    message = refusal("identify", bundle, src / "Pattern" / "only.png")
    assert "has no 'identification' part" in message
    assert "no items table was given" in message
    assert "has no 'ranking' part" in refusal("recommend", bundle, "u1")


def test_one_class_is_refused_before_training(
    src: Path, tmp_path: Path, ask: Ask, refusal: Say
) -> None:
    ask("import", "folder", src / "Colour" / "Red", tmp_path / "tables")
    config = tmp_path / "tables" / "one.toml"
    config.write_text(CONFIG.format(epochs=1))
    message = refusal("train", config, "--out", tmp_path / "runs")
    assert "vision: two products or categories are needed to learn from, got one at most" in message


def test_events_without_items_are_refused(
    src: Path, tmp_path: Path, ask: Ask, refusal: Say
) -> None:
    ask("import", "folder", src, tmp_path / "tables")
    config = tmp_path / "tables" / "events.toml"
    config.write_text(CONFIG.format(epochs=1).replace("[vision]", 'events = "e.csv"\n\n[vision]'))
    message = refusal("check", config, "--out", tmp_path / "quarantine")
    assert "items must be a table where there are events, got none" in message
