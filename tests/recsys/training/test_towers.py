import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

import text.checkpoint
import text.finetuning
import vision.checkpoint
import vision.dataset
import vision.finetuning
from recsys.config import DataConfig, TrainConfig
from recsys.data.dataset import Dataset
from recsys.data.quarantine import Quarantine
from recsys.schema import ItemSchema, PhotoSchema
from recsys.training.labels import Labels
from recsys.training.towers import (
    METRICS,
    TOWER,
    captioned_pictures,
    embed_dataset,
    label_pictures,
    load_embeddings,
    picture_paths,
    picture_samples,
    text_samples,
    train_text,
    train_vision,
)
from text.config import TextConfig
from text.encoder import TextEncoder
from text.networks.build import build_encoder
from vision.config import VisionConfig
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower

TITLES = ["red mug", None, "blue mug", "green jug", None, "blue jug"]
DESCRIPTIONS = ["for tea", None, None, None, "a thing", None]
IMAGES = ["0.png", "1.png", None, "3.png", "4.png", None]
COLOURS = ("red", "blue", "green")
LABELS = Labels({"colour": np.array([0, 1, 1, 2, -1, 1])}, {"colour": COLOURS})
# Item and split of each photo; no split means train.
PHOTOS = [("0", "train"), ("3", "val"), ("1", None), ("2", "test"), ("0", "val")]
CONFIG = TrainConfig(
    seed=3,
    device="cpu",
    data=DataConfig(items="items.parquet"),
    vision=VisionConfig(backbone="test_resnet", size=32, dim=8, epochs=1, batch_size=4),
    text=TextConfig(hidden=16, vocab_size=300, epochs=1, batch_size=4),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures, no two of which are alike."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name in [*(image for image in IMAGES if image), *(f"p{n}.png" for n in range(5))]:
        pixels = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40, 40)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def dataset(root: Path) -> Dataset:
    items = [
        {
            "item_id": str(n),
            "title": TITLES[n],
            "description": DESCRIPTIONS[n],
            "image": IMAGES[n],
            "category": [],
            "attributes": [],
            "available": True,
        }
        for n in range(6)
    ]
    photos = [
        {"image": f"p{n}.png", "item_id": item, "category": [], "split": split}
        for n, (item, split) in enumerate(PHOTOS)
    ]
    return Dataset(
        items=pl.DataFrame(items, schema=ItemSchema.create_empty().schema),
        events=None,
        photos=pl.DataFrame(photos, schema=PhotoSchema.create_empty().schema),
        images_root=root,
        quarantine=Quarantine(()),
    )


@pytest.fixture(scope="module")
def tower() -> VisionTower:
    torch.manual_seed(0)
    return VisionTower(build_backbone("test_resnet", size=32), dim=8, classes=LABELS.classes).eval()


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return build_encoder(CONFIG.text, [title for title in TITLES if title], seed=0)


def test_every_item_and_photo_has_the_towers_answer_in_its_own_row(
    dataset: Dataset, root: Path, tower: VisionTower, encoder: TextEncoder, tmp_path: Path
) -> None:
    embed_dataset(dataset, tower, encoder, tmp_path, device="cpu", progress=False)
    modalities, photos = load_embeddings(tmp_path)
    texts = ["red mug. for tea", None, "blue mug", "green jug", "a thing", "blue jug"]
    assert modalities.present["text"].tolist() == [one is not None for one in texts]
    assert modalities.present["image"].tolist() == [one is not None for one in IMAGES]
    for row in range(6):
        text_row, image_row = (modalities.embeddings[name][row] for name in ("text", "image"))
        wanted = encoder.embed([texts[row]])[0] if texts[row] else np.zeros(16)
        np.testing.assert_allclose(text_row, wanted, atol=1e-4)
        wanted = tower.embed([root / IMAGES[row]])[0] if IMAGES[row] else np.zeros(8)
        np.testing.assert_allclose(image_row, wanted, atol=1e-4)
    assert photos is not None
    wanted = tower.embed([root / f"p{n}.png" for n in range(5)])
    np.testing.assert_allclose(photos, wanted, atol=1e-4)


def test_pictures_come_with_the_text_of_the_item_on_them(dataset: Dataset, root: Path) -> None:
    captioned = captioned_pictures(dataset, LABELS)
    # The item without words and photos of val and test are left out.
    assert captioned.pictures.images == [
        root / name for name in ("0.png", "3.png", "4.png", "p0.png")
    ]
    assert captioned.texts == ["red mug. for tea", "green jug", "a thing", "red mug. for tea"]
    assert captioned.pictures.targets["colour"].tolist() == [0, 2, -1, 0]
    assert captioned.groups[0] == captioned.groups[3]
    assert len(set(captioned.groups.tolist())) == 3


def test_without_a_tower_there_is_no_such_modality(
    dataset: Dataset, tower: VisionTower, encoder: TextEncoder, tmp_path: Path
) -> None:
    for name, towers in (("text", (None, encoder)), ("image", (tower, None))):
        folder = tmp_path / name
        folder.mkdir()
        embed_dataset(dataset, *towers, folder, device="cpu", progress=False)
        modalities, photos = load_embeddings(folder)
        assert list(modalities.embeddings) == list(modalities.present) == [name]
        assert (photos is None) == (name == "text")


def test_pictures_lie_under_the_images_root(dataset: Dataset, root: Path) -> None:
    named = dataset.items["image"].drop_nulls()
    assert picture_paths(dataset, named) == [root / one for one in IMAGES if one]
    bare = Dataset(dataset.items, None, None, None, dataset.quarantine)
    assert picture_paths(bare, named.clear()) == []


def test_the_vision_tower_learns_from_item_pictures_and_training_photos_alone(
    dataset: Dataset, root: Path, tmp_path: Path
) -> None:
    train_vision(dataset, LABELS, CONFIG, tmp_path, progress=False)
    names = ["0.png", "1.png", "3.png", "4.png", "p0.png", "p2.png"]
    training = vision.dataset.Samples(
        [root / name for name in names],
        {"colour": np.array([0, 1, 2, -1, 0, 1])},
        {"colour": COLOURS},
    )
    validation = vision.dataset.Samples(
        [root / "p1.png", root / "p4.png"], {"colour": np.array([2, 0])}, {"colour": COLOURS}
    )
    wanted = vision.finetuning.finetune(
        training,
        CONFIG.vision,
        validation=validation,
        workdir=tmp_path / "by hand",
        seed=3,
        device="cpu",
    )
    saved = vision.checkpoint.load(tmp_path / TOWER)
    assert saved.classes == {"colour": COLOURS}
    for name, values in wanted.tower.state_dict().items():
        torch.testing.assert_close(saved.state_dict()[name], values)
    assert json.loads((tmp_path / METRICS).read_text()) == wanted.metrics


def test_every_picture_has_the_labels_of_its_product_or_else_of_its_own_category(
    dataset: Dataset, root: Path
) -> None:
    kinds = [["Home", "Mug"], ["Home", "Jug"], [], ["Home"], ["Home", "Mug"], ["Home", "Jug"]]
    items = dataset.items.with_columns(category=pl.Series(kinds, dtype=pl.List(pl.String)))
    shown: list[tuple[str | None, list[str], str | None]] = [
        ("0", ["Home", "Jug"], "train"),  # the product's own category counts
        (None, ["Home", "Jug"], None),
        (None, ["Home", "Spoon"], "train"),  # a category that no product has
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

    def told(samples: vision.dataset.Samples | None) -> list[tuple[str, str | None, str | None]]:
        """Return the file, the kind and the product of every picture, in order."""
        assert samples is not None
        kind, item = (
            [None if label < 0 else samples.classes[name][label] for label in samples.targets[name]]
            for name in ("category_2", "item")
        )
        names = [path.relative_to(root).name for path in samples.images]
        return list(zip(names, kind, item, strict=True))

    assert told(got.train) == [
        ("0.png", "Home > Mug", "0"),
        ("1.png", "Home > Jug", "1"),
        ("3.png", None, "3"),
        ("4.png", "Home > Mug", "4"),
        ("0.jpg", "Home > Mug", "0"),
        ("1.jpg", "Home > Jug", None),
    ]
    assert told(got.validation) == [("3.jpg", None, "3"), ("4.jpg", None, None)]
    assert told(got.test) == [("5.jpg", "Home > Mug", None)]
    assert got.unlabelled == (root / "2.jpg",)


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


def test_the_text_encoder_learns_from_the_samples(dataset: Dataset, tmp_path: Path) -> None:
    samples = text_samples(dataset.items, LABELS, np.array([[0, 2], [3, 4]]))
    train_text(samples, CONFIG, tmp_path, progress=False)
    wanted = text.finetuning.finetune(
        samples, CONFIG.text, workdir=tmp_path / "by hand", seed=3, device="cpu"
    )
    saved = text.checkpoint.load(tmp_path / TOWER)
    for name, values in wanted.encoder.state_dict().items():
        torch.testing.assert_close(saved.state_dict()[name], values)
    assert json.loads((tmp_path / METRICS).read_text()) == wanted.metrics
