from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import vision.dataset
from recsys.data.dataset import Dataset
from recsys.schema import PhotoSchema
from recsys.training.labels import title_groups
from recsys.training.samples import (
    captioned_pictures,
    label_pictures,
    picture_paths,
    picture_samples,
    text_samples,
    training_photos,
    warn_of_unseen_classes,
)
from tests.recsys.training.mug_shop import COLOURS, IMAGES, LABELS


def test_pictures_come_with_the_text_of_the_item_on_them(dataset: Dataset, root: Path) -> None:
    captioned = captioned_pictures(dataset, LABELS, title_groups(dataset.items))
    # The item without words and photos of val and test are left out.
    assert captioned.pictures.images == [
        root / name for name in ("0.png", "3.png", "4.png", "p0.png")
    ]
    assert captioned.texts == ["red mug. for tea", "green jug", "a thing", "red mug. for tea"]
    assert captioned.pictures.targets["colour"].tolist() == [0, 2, -1, 0]
    assert captioned.groups[0] == captioned.groups[3]
    assert len(set(captioned.groups.tolist())) == 3


def test_pictures_lie_under_the_images_root(dataset: Dataset, root: Path) -> None:
    named = dataset.items["image"].drop_nulls()
    assert picture_paths(dataset, named) == [root / one for one in IMAGES if one]
    bare = Dataset(dataset.items, None, None, None, dataset.quarantine)
    assert picture_paths(bare, named.clear()) == []


def test_every_picture_has_the_labels_of_its_product_or_else_of_its_own_category(
    dataset: Dataset, root: Path
) -> None:
    kinds = [["Home", "Mug"], ["Home", "Jug"], [], ["Home"], ["Home", "Mug"], ["Home", "Jug"]]
    items = dataset.items.with_columns(category=pl.Series(kinds, dtype=pl.List(pl.String)))
    shown: list[tuple[str | None, list[str], str | None]] = [
        ("0", ["Home", "Jug"], "train"),  # the product's own category counts
        (None, ["Home", "Jug"], None),
        (None, ["Home", "Spoon"], "train"),  # a category that no product has is a class as well
        (None, [], "train"),
        ("3", [], "val"),
        (None, [], "val"),
        (None, ["Home", "Mug"], "test"),
    ]
    photos = pl.DataFrame(
        [
            {"image": f"{n}.jpg", "item_id": item, "category": path, "split": split}
            for n, (item, path, split) in enumerate(shown)
        ],
        schema=PhotoSchema.create_empty().schema,
    )
    shop = replace(dataset, items=items, photos=photos)
    got = picture_samples(shop, label_pictures(shop))

    def pictured(
        samples: vision.dataset.Samples | None,
    ) -> list[tuple[str, str | None, str | None]]:
        """Return the file, the kind and the product of every picture, in order."""
        assert samples is not None
        kind, item = (
            [None if label < 0 else samples.classes[name][label] for label in samples.targets[name]]
            for name in ("category_2", "item")
        )
        names = [path.relative_to(root).name for path in samples.images]
        return list(zip(names, kind, item, strict=True))

    assert pictured(got.train) == [
        ("0.png", "Home > Mug", "0"),
        ("1.png", "Home > Jug", "1"),
        ("3.png", None, "3"),
        ("4.png", "Home > Mug", "4"),
        ("0.jpg", "Home > Mug", "0"),
        ("1.jpg", "Home > Jug", None),
        ("2.jpg", "Home > Spoon", None),
    ]
    assert pictured(got.validation) == [("4.jpg", None, "3"), ("5.jpg", None, None)]
    assert pictured(got.test) == [("6.jpg", "Home > Mug", None)]
    assert got.unlabelled == (root / "3.jpg",)


def test_photos_without_a_label_are_kept_apart(dataset: Dataset, root: Path) -> None:
    assert dataset.photos is not None
    bare = pl.DataFrame(
        {"image": ["p3.png"], "item_id": [None], "category": [[]], "split": ["train"]},
        schema=dataset.photos.schema,
    )
    photos = pl.concat([dataset.photos, bare])
    got = picture_samples(replace(dataset, photos=photos), LABELS)
    assert got.unlabelled == (root / "p3.png",)
    assert len(got.train) == 6
    assert got.validation is not None
    assert got.test is not None
    assert (len(got.validation), len(got.test)) == (2, 1)
    alone = picture_samples(replace(dataset, photos=None), LABELS)
    assert (alone.validation, alone.test, alone.unlabelled) == (None, None, ())


def test_products_are_classes_where_photos_show_them(dataset: Dataset) -> None:
    assert "item" in label_pictures(dataset).classes
    labelled = dataset.items.with_columns(
        category=pl.Series([["Home", "Mug"], ["Home", "Jug"]] * 3, dtype=pl.List(pl.String))
    )
    alone = label_pictures(replace(dataset, items=labelled, photos=None))
    assert [*alone.classes] == ["category_2"]


def test_photos_of_no_product_do_not_make_products_classes(dataset: Dataset) -> None:
    assert dataset.photos is not None
    kinds = pl.Series([["Mug"], ["Jug"]] * 3, dtype=pl.List(pl.String))
    shop = replace(
        dataset,
        items=dataset.items.with_columns(category=kinds),
        photos=dataset.photos.with_columns(item_id=pl.lit(None, pl.String)),
    )
    assert [*label_pictures(shop).classes] == ["category_1"]


def test_photos_alone_are_the_samples_of_a_shop_without_items(dataset: Dataset, root: Path) -> None:
    assert dataset.photos is not None
    kinds = pl.Series([["Mug"], ["Jug"], ["Mug"], [], []], dtype=pl.List(pl.String))
    photos = dataset.photos.with_columns(item_id=pl.lit(None, pl.String), category=kinds)
    shop = replace(dataset, items=dataset.items.clear(), photos=photos)
    got = picture_samples(shop, label_pictures(shop))
    assert got.train.images == [root / "p0.png", root / "p2.png"]
    assert got.train.classes == {"category_1": ["Jug", "Mug"]}
    assert got.train.targets["category_1"].tolist() == [1, 1]
    assert got.unlabelled == ()
    unlabelled = replace(
        shop, photos=photos.with_columns(category=kinds.clear().extend_constant([], 5))
    )
    got = picture_samples(unlabelled, label_pictures(unlabelled))
    assert (len(got.train), got.train.classes, len(got.unlabelled)) == (0, {}, 2)


def test_classes_that_are_measured_and_not_learned_are_logged(
    dataset: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    assert dataset.photos is not None
    kinds = pl.Series([["Mug"], ["Jug"], ["Mug"], ["Spoon"], ["Jug"]], dtype=pl.List(pl.String))
    photos = dataset.photos.with_columns(item_id=pl.lit(None, pl.String), category=kinds)
    shop = replace(dataset, items=dataset.items.clear(), photos=photos)
    warn_of_unseen_classes(picture_samples(shop, label_pictures(shop)))
    (record,) = caplog.records
    wanted = "category_1: 2 of 3 classes have photos of val or test, but no picture to learn from"
    assert record.getMessage().startswith(f"{wanted}, such as 'Jug'")
    caplog.clear()
    shop = replace(shop, photos=photos.with_columns(split=pl.lit("train")))
    warn_of_unseen_classes(picture_samples(shop, label_pictures(shop)))
    assert not caplog.records


def test_a_category_for_every_product_is_its_identity(dataset: Dataset) -> None:
    kinds = pl.Series([["Home", str(n)] for n in range(6)], dtype=pl.List(pl.String))
    shop = replace(dataset, items=dataset.items.with_columns(category=kinds))
    assert [*label_pictures(shop).classes] == ["category_2"]


def test_texts_keep_their_own_labels_categories_and_pairs(dataset: Dataset) -> None:
    kinds = pl.Series([["Home", str(n)] for n in range(6)], dtype=pl.List(pl.String))
    # Item 1 has no text: what goes with it is left out.
    pairs = np.array([[0, 2], [1, 3], [5, 4], [0, 1]], dtype=np.int64)
    samples = text_samples(dataset.items.with_columns(category=kinds), LABELS, pairs)
    assert samples.texts == ["red mug. for tea", "blue mug", "green jug", "a thing", "blue jug"]
    assert samples.targets["colour"].tolist() == [0, 1, 2, -1, 1]
    assert samples.classes == {"colour": COLOURS}
    assert samples.categories == [["Home", str(n)] for n in (0, 2, 3, 4, 5)]
    assert samples.pairs.tolist() == [[0, 1], [4, 3]]


def test_training_photos_are_those_of_train_that_name_their_item(dataset: Dataset) -> None:
    assert training_photos(dataset)["image"].to_list() == ["p0.png", "p2.png"]
    assert dataset.photos is not None
    nameless = dataset.photos.with_columns(item_id=pl.lit(None, dtype=pl.String))
    assert len(training_photos(replace(dataset, photos=nameless))) == 0
    assert len(training_photos(replace(dataset, photos=None))) == 0
