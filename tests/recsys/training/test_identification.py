from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from recsys.catalogue.embedder import Modalities
from recsys.config import IdentificationConfig
from recsys.data.dataset import Dataset
from recsys.data.quarantine import Quarantine
from recsys.identification.evidence import (
    REGRESSION,
    Evidence,
    Gallery,
    Photos,
    collect_evidence,
)
from recsys.identification.fitting import fit_calibration
from recsys.identification.photos import TowerPhotos, fuse_images
from recsys.identification.regression import fit_regression
from recsys.models.fusion import ItemFusion
from recsys.schema import ItemSchema, PhotoSchema
from recsys.training.identification import (
    HeldOut,
    LabelledPhotos,
    calibrate,
    evidence_of,
    fuse_without_halves,
    gallery_of,
    held_out_products,
    load_photos,
    observe,
    product_classes,
    run_photos,
)
from recsys.training.samples import labelled_photos
from recsys.training.stack import FusedItems
from recsys.training.stages import Runtime
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower

DIM = 8
# Item and split of each photo; no split means train.
PHOTOS = [("a", "train"), ("b", "val"), ("a", None), (None, "val"), ("c", "val"), ("a", "test")]
IMAGES = ["a.png", None, "c.png"]
CATEGORIES = np.array([[0, 1], [0, 2], [3, -1]])  # of the items a, b and c


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


def test_the_target_with_most_classes_of_a_single_product_is_the_head() -> None:
    table = items(["fruit", "apple"], ["fruit", "pear"], ["milk"], ["milk"])
    classes = {
        "category_1": ["fruit", "milk"],
        "category_2": ["fruit > apple", "fruit > kiwi", "fruit > pear"],
        "attribute_colour": ["a", "b", "c", "d"],
    }
    target, rows = product_classes(classes, table)
    assert target == "category_2"
    assert rows.tolist() == [0, -1, 1]


def test_the_item_itself_can_be_the_head() -> None:
    table = items(["fruit"], ["fruit"], ["milk"])
    target, rows = product_classes(
        {"category_1": ["fruit", "milk"], "item": ["c", "a", "b"]}, table
    )
    assert target == "item"
    assert rows.tolist() == [2, 0, 1]


def test_without_a_class_of_a_single_product_there_is_no_head() -> None:
    target, rows = product_classes({"category_1": ["fruit"]}, items(["fruit"], ["fruit"]))
    assert target is None
    assert rows.shape == (0,)


def test_the_towers_outputs_come_back_from_their_folder(
    dataset: Dataset, runtime: Runtime, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    backbone = build_backbone("test_resnet", size=32)
    tower = VisionTower(backbone, dim=DIM, classes={"item": ["a", "b", "c"]})
    assert dataset.images_root is not None
    paths = [dataset.images_root / f"photo-{n}.png" for n in range(len(PHOTOS))]
    run_photos(paths, tower, tmp_path, head="item", views="flip", runtime=runtime)
    found = load_photos(tmp_path)
    assert torch.allclose(
        found.embeddings, torch.from_numpy(tower.embed(paths, views="flip")), atol=1e-5
    )
    assert found.logits.shape == (len(PHOTOS), 3)
    assert found.features.shape == (len(PHOTOS), tower.n_features)


def test_labelled_photos_name_their_item_and_are_of_train_or_val(dataset: Dataset) -> None:
    found = labelled_photos(dataset)
    assert found["image"].to_list() == [f"photo-{n}.png" for n in (0, 1, 2, 4)]
    assert found["split"].to_list() == ["train", "val", "train", "val"]
    assert len(labelled_photos(replace(dataset, photos=None))) == 0


@pytest.fixture
def photos(dataset: Dataset) -> LabelledPhotos:
    """Photos of a (train), b (val), a (train) and c (val), with random tower outputs."""
    generator = torch.Generator().manual_seed(0)
    seen = TowerPhotos(*(torch.randn(4, size, generator=generator) for size in (DIM, 2, 5)))
    labels = labelled_photos(dataset)
    return LabelledPhotos.from_table(labels, dataset.items, seen, np.array([2, 1]))


def pictured(*present: bool) -> Modalities:
    pictures = np.random.default_rng(0).normal(size=(3, DIM)).astype(np.float32)
    return Modalities({"image": pictures}, {"image": np.array(present)})


def random_fusion(seed: int) -> FusedItems:
    torch.manual_seed(seed)
    embeddings = np.random.default_rng(seed).normal(size=(3, 6)).astype(np.float32)
    return FusedItems(ItemFusion({"image": DIM}, dim=6).eval(), embeddings, key=str(seed))


def test_photos_of_a_table_have_the_rows_of_their_items(photos: LabelledPhotos) -> None:
    assert photos.rows.tolist() == [0, 1, 0, 2]
    assert photos.in_val.tolist() == [False, True, False, True]
    val = photos.take(photos.in_val)
    assert val.rows.tolist() == [1, 2]
    assert torch.equal(val.seen.embeddings, photos.seen.embeddings[[1, 3]])
    assert torch.equal(val.seen.logits, photos.seen.logits[[1, 3]])


def test_the_gallery_has_the_pictures_and_the_photos_of_train(photos: LabelledPhotos) -> None:
    modalities, fusion = pictured(True, False, True), random_fusion(0).fusion
    gallery = gallery_of(photos, modalities, fusion)
    assert gallery.picture_rows.tolist() == [0, 2]
    pictures = torch.from_numpy(modalities.embeddings["image"][[0, 2]])
    assert torch.allclose(gallery.pictures, fuse_images(fusion, pictures), atol=1e-6)
    assert gallery.photo_rows.tolist() == [0, 0]
    train = fuse_images(fusion, photos.seen.embeddings[[0, 2]])
    assert torch.allclose(gallery.photos, train, atol=1e-6)
    assert gallery.head_rows.tolist() == [2, 1]


def evidence_by_hand(photos: LabelledPhotos, fused: FusedItems, photo: int) -> Evidence:
    """Return the evidence of one photo, from a gallery put together by hand."""
    pictures = torch.from_numpy(pictured(True, True, True).embeddings["image"])
    gallery = Gallery(
        fuse_images(fused.fusion, pictures),
        torch.arange(3),
        fuse_images(fused.fusion, photos.seen.embeddings[[0, 2]]),
        torch.tensor([0, 0]),
        torch.tensor([2, 1]),
    ).with_regression(fit_regression(photos.seen.features[[0, 2]], torch.tensor([0, 0])))
    query = fuse_images(fused.fusion, photos.seen.embeddings[[photo]])
    asked = Photos(query, photos.seen.logits[[photo]], photos.seen.features[[photo]])
    return collect_evidence(asked, torch.from_numpy(fused.embeddings), gallery)


def test_evidence_is_collected_in_the_space_of_the_fusion(photos: LabelledPhotos) -> None:
    fused = random_fusion(0)
    gallery = gallery_of(photos, pictured(True, True, True), fused.fusion)
    found = evidence_of(photos, fused, gallery)
    for photo in range(4):
        wanted = evidence_by_hand(photos, fused, photo)
        torch.testing.assert_close(found.values[[photo]], wanted.values)
        assert torch.equal(found.present[[photo]], wanted.present)


def test_the_calibration_is_fitted_on_photos_of_val_with_held_out_fusions(
    photos: LabelledPhotos,
) -> None:
    modalities, config = pictured(True, True, True), IdentificationConfig(precision=0.9)
    fused, of_b, of_c = (random_fusion(seed) for seed in range(3))
    gallery = gallery_of(photos, modalities, fused.fusion)
    held_out = [
        HeldOut(np.array([row]), other, gallery_of(photos, modalities, other.fusion))
        for row, other in ((1, of_b), (2, of_c))
    ]
    evidence, unmet = (
        Evidence(*(torch.cat(parts) for parts in zip(*both, strict=True)))
        for both in (
            [evidence_by_hand(photos, fused, photo) for photo in (1, 3)],
            [evidence_by_hand(photos, of_b, 1), evidence_by_hand(photos, of_c, 3)],
        )
    )
    wanted = fit_calibration(
        evidence,
        torch.tensor([1, 2]),
        torch.from_numpy(CATEGORIES),
        precision=config.precision,
        unknown_share=config.unknown_share,
        unmet=unmet,
    )

    observed, met = (observe(photos, fused, gallery, halves) for halves in (held_out, []))
    found = calibrate(observed, CATEGORIES, config)
    met_alone = calibrate(met, CATEGORIES, config)

    assert found.weights == pytest.approx(wanted.weights)
    assert found.unknown == pytest.approx(wanted.unknown)
    assert found.n_photos == 2
    assert found.wanted_precision == 0.9
    assert found.unknown_share == config.unknown_share
    assert met_alone.weights != pytest.approx(wanted.weights, abs=1e-6)


def test_no_regression_has_met_the_product_that_is_thought_away(photos: LabelledPhotos) -> None:
    everything = replace(
        photos, in_val=np.array([False, True, False, True]), rows=np.arange(4) // 2
    )
    fused = random_fusion(0)
    gallery = gallery_of(everything, pictured(True, True, True), fused.fusion)
    observed = observe(everything, fused, gallery, [])
    assert observed.evidence.present[0, :, REGRESSION].tolist() == [True, True, False]
    assert observed.unmet.present[..., REGRESSION].tolist() == [
        [False, True, False],
        [True, False, False],
    ]
    for photo, other in ((0, 2), (1, 0)):
        alone = fit_regression(everything.seen.features[[other]], torch.tensor([1 - photo]))
        said = alone.scores(everything.seen.features[[2 * photo + 1]])
        assert torch.equal(observed.unmet.values[photo, [1 - photo], REGRESSION], said[0])


def test_every_second_product_of_val_is_held_out(photos: LabelledPhotos) -> None:
    halves = held_out_products(photos, pictured(True, True, True))
    assert [half.tolist() for half in halves] == [[1], [2]]


def test_no_product_is_held_out_when_too_few_are_left_to_train_on(photos: LabelledPhotos) -> None:
    assert held_out_products(photos, pictured(True, False, True)) == []
    without_c = photos.take(photos.rows != 2)
    assert held_out_products(without_c, pictured(True, True, True)) == []


def test_each_half_is_left_out_of_a_fusion_of_its_own(photos: LabelledPhotos) -> None:
    modalities, calls = pictured(True, True, True), []

    def fuse(suffix: str, without: Sequence[int]) -> FusedItems:
        calls.append((suffix, without))
        return random_fusion(len(calls))

    held_out = fuse_without_halves(photos, modalities, fuse)
    assert calls == [("-held-out-1", [1]), ("-held-out-2", [2])]
    assert [one.products.tolist() for one in held_out] == [[1], [2]]
    for number, one in enumerate(held_out, start=1):
        assert one.fused.key == str(number)
        wanted = gallery_of(photos, modalities, one.fused.fusion)
        assert torch.equal(one.gallery.pictures, wanted.pictures)
