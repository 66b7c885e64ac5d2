from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from recsys.catalogue.embedder import Modalities
from recsys.catalogue.store import Catalogue
from recsys.config import IdentificationConfig
from recsys.data.dataset import Dataset
from recsys.data.quarantine import Quarantine
from recsys.identification.calibration import Calibration, fit_calibration
from recsys.identification.evidence import Evidence, Gallery, Photos, collect_evidence
from recsys.identification.photos import fuse_pictures
from recsys.models.fusion import ItemFusion
from recsys.schema import ItemSchema, PhotoSchema
from recsys.training.identification import (
    build_gallery,
    held_out_products,
    labelled_photos,
    load_photos,
    look_at_photos,
    product_classes,
)
from recsys.training.stack import FusedItems
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower

DIM = 8
# Item and split of each photo; no split means train, and no item means that it is not known.
PHOTOS = [("a", "train"), ("b", "val"), ("a", None), (None, "val"), ("c", "val"), ("a", "test")]
IMAGES = ["a.png", None, "c.png"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for name in ("a.png", "c.png", *(f"photo-{n}.png" for n in range(len(PHOTOS)))):
        pixels = random.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def dataset(root: Path) -> Dataset:
    return Dataset(
        items=items(["fruit", "apple"], ["fruit", "pear"], ["milk"], images=IMAGES),
        events=None,
        photos=PhotoSchema.cast(
            pl.DataFrame(
                {
                    "image": [f"photo-{n}.png" for n in range(len(PHOTOS))],
                    "item_id": [item_id for item_id, _ in PHOTOS],
                    "category": [[] for _ in PHOTOS],
                    "split": [split for _, split in PHOTOS],
                },
                schema=PhotoSchema.create_empty().schema,
            )
        ),
        images_root=root,
        quarantine=Quarantine(()),
    )


def items(*paths: list[str], images: list[str | None] | None = None) -> pl.DataFrame:
    rows = [
        dict.fromkeys(ItemSchema.column_names())
        | {
            "item_id": "abcdef"[n],
            "category": path,
            "image": images[n] if images else None,
            "attributes": [],
            "available": True,
        }
        for n, path in enumerate(paths)
    ]
    return ItemSchema.cast(pl.DataFrame(rows, schema=ItemSchema.create_empty().schema))


def test_the_level_that_tells_most_products_apart_is_the_head() -> None:
    table = items(["fruit", "apple"], ["fruit", "pear"], ["milk"], ["milk"])
    classes = {
        "category_1": ["fruit", "milk"],
        "category_2": ["fruit > apple", "fruit > kiwi", "fruit > pear"],
        "attribute_colour": ["a", "b", "c", "d"],
    }
    target, rows = product_classes(classes, table)
    assert target == "category_2"
    assert rows.tolist() == [0, -1, 1]


def test_the_product_itself_is_a_target_too() -> None:
    table = items(["fruit"], ["fruit"], ["milk"])
    target, rows = product_classes(
        {"category_1": ["fruit", "milk"], "item": ["c", "a", "b"]}, table
    )
    assert target == "item"
    assert rows.tolist() == [2, 0, 1]


def test_without_a_class_that_is_one_product_there_is_no_head() -> None:
    target, rows = product_classes({"category_1": ["fruit"]}, items(["fruit"], ["fruit"]))
    assert target is None
    assert rows.shape == (0,)


def test_what_is_seen_on_photos_comes_back_from_its_folder(
    dataset: Dataset, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    backbone = build_backbone("test_resnet", size=32)
    tower = VisionTower(backbone, dim=DIM, classes={"item": ["a", "b", "c"]})
    assert dataset.images_root is not None
    paths = [dataset.images_root / f"photo-{n}.png" for n in range(len(PHOTOS))]
    look_at_photos(paths, tower, tmp_path, head="item", views="flip", device="cpu", progress=False)
    found = load_photos(tmp_path)
    assert torch.allclose(
        found.embeddings, torch.from_numpy(tower.embed(paths, views="flip")), atol=1e-5
    )
    assert found.logits.shape == (len(PHOTOS), 3)


def test_labelled_photos_are_those_of_train_and_val_that_name_their_item(dataset: Dataset) -> None:
    found = labelled_photos(dataset)
    assert found["image"].to_list() == [f"photo-{n}.png" for n in (0, 1, 2, 4)]
    assert found["split"].to_list() == ["train", "val", "train", "val"]
    assert len(labelled_photos(replace(dataset, photos=None))) == 0


def test_the_gallery_has_pictures_and_train_photos_and_is_calibrated_on_those_of_val(
    dataset: Dataset,
) -> None:
    torch.manual_seed(0)
    fusion = ItemFusion({"image": DIM}, dim=6).eval()
    labels = labelled_photos(dataset)
    photos = Photos(torch.randn(len(labels), DIM), torch.randn(len(labels), 2))
    pictures = np.random.default_rng(0).normal(size=(3, DIM)).astype(np.float32)
    modalities = Modalities({"image": pictures}, {"image": np.array([True, False, True])})
    fused = FusedItems(fusion, np.eye(3, 6, dtype=np.float32), key="")
    head_rows = np.array([2, 1])
    config = IdentificationConfig(precision=0.9, unknown_share=0.2)
    gallery, calibration = build_gallery(
        dataset.items, labels, photos, modalities, fused, [], head_rows, config
    )
    assert gallery.picture_rows.tolist() == [0, 2]
    wanted = fuse_pictures(fusion, torch.from_numpy(pictures[[0, 2]]))
    assert torch.allclose(gallery.pictures, wanted, atol=1e-6)
    assert gallery.photo_rows.tolist() == [0, 0]
    train = fuse_pictures(fusion, photos.embeddings[[0, 2]])
    assert torch.allclose(gallery.photos, train, atol=1e-6)
    assert gallery.head_rows.tolist() == [2, 1]
    assert calibration.n_photos == 2
    assert calibration.wanted_precision == 0.9
    assert calibration.unknown_share == 0.2


def test_strangers_are_shown_as_a_fusion_sees_them_that_has_not_met_them(dataset: Dataset) -> None:
    torch.manual_seed(0)
    labels = labelled_photos(dataset)
    photos = Photos(torch.randn(len(labels), DIM), torch.zeros(len(labels), 0))
    pictures = np.random.default_rng(0).normal(size=(3, DIM)).astype(np.float32)
    modalities = Modalities({"image": pictures}, {"image": np.ones(3, dtype=bool)})
    config = IdentificationConfig()
    fused, of_b, of_c = (
        FusedItems(ItemFusion({"image": DIM}, dim=6).eval(), embeddings, key="")
        for embeddings in np.random.default_rng(1).normal(size=(3, 3, 6)).astype(np.float32)
    )

    def calibrated(held_out: list[tuple[np.ndarray, FusedItems]]) -> Calibration:
        head_rows = np.empty(0, dtype=np.int64)
        return build_gallery(
            dataset.items, labels, photos, modalities, fused, held_out, head_rows, config
        )[1]

    def said(seen_by: FusedItems, photo: int) -> Evidence:
        gallery = Gallery(
            fuse_pictures(seen_by.fusion, torch.from_numpy(pictures)),
            torch.arange(3),
            fuse_pictures(seen_by.fusion, photos.embeddings[[0, 2]]),
            torch.tensor([0, 0]),
            torch.empty(0, dtype=torch.int64),
        )
        asked = Photos(*(part[[photo]] for part in photos))
        asked = asked._replace(embeddings=fuse_pictures(seen_by.fusion, asked.embeddings))
        return collect_evidence(asked, torch.from_numpy(seen_by.embeddings), gallery)

    val = [1, 3]  # photos of b and c
    evidence, unmet = (
        Evidence(*(torch.cat(parts) for parts in zip(*both, strict=True)))
        for both in (
            [said(fused, photo) for photo in val],
            [said(of_b, val[0]), said(of_c, val[1])],
        )
    )
    wanted = fit_calibration(
        evidence,
        torch.tensor([1, 2]),
        torch.from_numpy(Catalogue(dataset.items, fused.embeddings).categories),
        precision=config.precision,
        unknown_share=config.unknown_share,
        unmet=unmet,
    )
    found = calibrated([(np.array([1]), of_b), (np.array([2]), of_c)])
    assert found.weights == pytest.approx(wanted.weights)
    assert found.unknown == pytest.approx(wanted.unknown)
    assert calibrated([]).weights != pytest.approx(wanted.weights, abs=1e-6)


def test_every_second_product_of_val_is_held_out_where_enough_are_left(dataset: Dataset) -> None:
    labels, present = labelled_photos(dataset), np.ones(3, dtype=bool)
    halves = held_out_products(labels, dataset.items, Modalities({}, {"image": present}))
    assert [half.tolist() for half in halves] == [[1], [2]]
    one_left = Modalities({}, {"image": np.array([True, False, True])})
    assert held_out_products(labels, dataset.items, one_left) == []
    one_asked = labels.filter(pl.col("item_id") != "c")
    assert held_out_products(one_asked, dataset.items, Modalities({}, {"image": present})) == []
