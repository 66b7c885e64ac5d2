import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import text.dataset
import vision.dataset
from recsys.config import TrainConfig
from recsys.data.dataset import Dataset
from recsys.data.interactions import Interactions, build_interactions
from recsys.errors import DataError
from recsys.training.labels import item_labels, title_groups
from recsys.training.parts import (
    ITEMS_TRAINING,
    TEXT_TRAINING,
    why_left_out,
    why_no_ranking,
    why_no_text,
    why_no_vision,
)
from recsys.training.samples import label_pictures, picture_samples, text_samples

NO_PAIRS = np.empty((0, 2), dtype=np.int64)
START = datetime(2025, 1, 1, tzinfo=UTC)


def left_out(dataset: Dataset, **config: object) -> dict[str, str]:
    pictures = picture_samples(dataset, label_pictures(dataset))
    texts = text_samples(dataset.items, item_labels(dataset.items), NO_PAIRS)
    settings = TrainConfig.model_validate(config)
    return why_left_out(dataset, pictures, texts, title_groups(dataset.items), settings)


def changed(dataset: Dataset, **columns: pl.Expr) -> Dataset:
    """Return the shop with other columns in its items table."""
    return replace(dataset, items=dataset.items.with_columns(**columns))


ONE_TITLE = {
    "title": pl.when(pl.int_range(pl.len()) == 0).then("title"),
    "description": pl.lit(None, dtype=pl.String),
}
NO_PICTURE = {"image": pl.lit(None, dtype=pl.String)}
NO_TITLE = {name: pl.lit(None, dtype=pl.String) for name in ("title", "description")}


def test_a_shop_with_pictures_titles_and_photos_trains_every_part(dataset: Dataset) -> None:
    assert left_out(dataset) == {}


def test_without_its_extra_words_on_photos_are_left_out_unless_they_are_not_wanted(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    assert left_out(dataset) == {
        "words on photos": "rapidocr is not installed (pip install 'vitrine-recsys[ocr]')"
    }
    assert left_out(dataset, identification={"words": "off"}) == {}


def test_one_title_beside_pictures_leaves_the_text_encoder_out(dataset: Dataset) -> None:
    assert left_out(changed(dataset, **ONE_TITLE)) == {
        "text": "two different titles or descriptions are needed to learn from, got 1"
    }


def test_one_title_is_enough_for_an_encoder_that_starts_from_a_checkpoint(
    dataset: Dataset,
) -> None:
    reasons = left_out(changed(dataset, **ONE_TITLE), text={"checkpoint": "minilm"})
    assert list(reasons) == [TEXT_TRAINING]


def test_with_nothing_but_one_title_encoder_and_fusion_stay_as_they_were_built(
    dataset: Dataset,
) -> None:
    reasons = left_out(replace(changed(dataset, **ONE_TITLE, **NO_PICTURE), photos=None))
    assert list(reasons) == ["vision", TEXT_TRAINING, ITEMS_TRAINING, "identification"]


def test_without_titles_and_pictures_nothing_can_be_embedded(dataset: Dataset) -> None:
    wanted = r"titles or pictures to learn from, got none \(vision: no item has a readable picture"
    with pytest.raises(DataError, match=wanted):
        left_out(replace(changed(dataset, **NO_TITLE, **NO_PICTURE), photos=None))


def test_photos_train_the_tower_of_a_shop_whose_items_have_no_picture(dataset: Dataset) -> None:
    assert left_out(changed(dataset, **NO_PICTURE)) == {}
    assert list(left_out(changed(dataset, **NO_PICTURE, **NO_TITLE))) == ["text", ITEMS_TRAINING]


def test_alignment_needs_pictures_of_two_titles(dataset: Dataset) -> None:
    aligned = {"alignment": {"epochs": 1}}
    assert left_out(dataset, **aligned) == {}
    assert list(left_out(changed(dataset, **ONE_TITLE), **aligned)) == ["text", "alignment"]
    titled = pl.col("title").is_not_null()
    apart = changed(dataset, image=pl.when(~titled).then("image"), description=NO_PICTURE["image"])
    assert "two titles" in left_out(apart, **aligned)["alignment"]


def pictures(root: Path, names: list[str], labels: list[int]) -> vision.dataset.Samples:
    return vision.dataset.Samples(
        [root / name for name in names],
        {"colour": np.array(labels, dtype=np.int64)},
        {"colour": ("a", "b")},
    )


def test_pictures_must_differ_in_content_and_in_what_they_show(root: Path, tmp_path: Path) -> None:
    assert why_no_vision(pictures(root, ["0.png", "1.png"], [0, 1])) is None
    (tmp_path / "copy.png").write_bytes((root / "0.png").read_bytes())
    same = pictures(root, ["0.png", str(tmp_path / "copy.png")], [0, 1])
    assert why_no_vision(same) == ("two different pictures are needed to learn from, got 2 alike")
    of_one = pictures(root, ["0.png", "1.png", "3.png"], [1, 1, -1])
    assert "pictures of two products" in (why_no_vision(of_one) or "")
    assert "no item has a readable picture" in (why_no_vision(pictures(root, [], [])) or "")
    no_class = vision.dataset.Samples([root / "0.png", root / "1.png"], {}, {})
    assert "two products or categories are needed" in (why_no_vision(no_class) or "")


def test_texts_must_differ_in_words() -> None:
    assert why_no_text(text.dataset.Samples(["red mug", "blue mug"])) is None
    assert "got 2 alike" in (why_no_text(text.dataset.Samples(["mug", " mug\u200b"])) or "")
    assert why_no_text(text.dataset.Samples(["\u200b"])) == "no item has a title or description"


def events(days: list[int], items: tuple[str, ...] = ("a", "b")) -> Interactions:
    table = pl.DataFrame(
        {
            "user_id": ["u"] * len(days),
            "item_id": [items[n % len(items)] for n in range(len(days))],
            "kind": ["view"] * len(days),
            "timestamp": [START + timedelta(days=day) for day in days],
            "quantity": [1.0] * len(days),
        }
    )
    return build_interactions(table, items)


@pytest.mark.parametrize(
    ("interactions", "reason"),
    [
        (None, "no events table was given"),
        (events([0, 1, 2], ("a",)), "two items are needed, got 1"),
        (events([0, 5, 5, 5]), "events at 3 different times are needed, got 2"),
        (events([0, 1, 2]), None),
    ],
)
def test_ranking_needs_two_items_and_events_at_three_times(
    interactions: Interactions | None, reason: str | None
) -> None:
    assert why_no_ranking(interactions) == reason
