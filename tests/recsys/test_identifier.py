"""Planted bundle: untrained towers and known weights, so that the right answer is known."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from recsys.answers import PRECISION_NOT_REACHED, Identification
from recsys.bundle import Bundle, Contents, write_bundle
from recsys.catalogue.embedder import ItemEmbedder
from recsys.config import FusionConfig
from recsys.data.synthetic import Shop
from recsys.errors import (
    InvalidArgumentError,
    InvalidImageError,
    MissingPartError,
    UnknownItemError,
)
from recsys.identification.calibration import Calibration, OperatingPoint
from recsys.identification.evidence import SOURCES, Gallery
from recsys.identification.stored import IdentificationPart
from recsys.identifier import ProductIdentifier
from recsys.models.fusion import build_fusion
from recsys.pipeline import Run
from recsys.recommender import Recommender
from recsys.schema import ItemSchema
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
SIDES = (4, 7, 10, 13)
POINT = OperatingPoint(0.8, precision=0.95, coverage=0.9)
# Only cosines to pictures and to labelled photos count; above 0.985 they speak for a product.
# With these weights the rounding of a cosine moves a probability by up to ROUNDING.
ROUNDING = 1e-3
OTHERS = (0.0,) * (len(SOURCES) - 3)
CALIBRATION = Calibration(
    weights=(300.0, 0.0, 3_000.0, *OTHERS),
    pivots=(0.985, 0.0, 0.985, *OTHERS),
    unknown=0.0,
    known=POINT,
    named=POINT,
)


def encode(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, kind, **options)
    return file.getvalue()


def square(colour: tuple[int, int, int], side: int) -> np.ndarray:
    """Return a coloured square on grey with a dark top, so that turning it shows."""
    pixels = np.full((32, 32, 3), 128)
    pixels[16 - side : 16 + side, 16 - side : 16 + side] = colour
    pixels[:6] = 40
    return pixels


PICTURES = {
    f"{name}-{side}": encode(square(colour, side))
    for name, colour in COLOURS.items()
    for side in SIDES
}


def item(item_id: str, *category: str) -> dict[str, object]:
    row = dict.fromkeys(ItemSchema.column_names())
    return row | {
        "item_id": item_id,
        "category": list(category),
        "attributes": [],
        "available": True,
    }


def table(*rows: dict[str, object]) -> pl.DataFrame:
    return ItemSchema.cast(pl.DataFrame(rows, schema=ItemSchema.create_empty().schema))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Twelve products: three colours, each in four sizes that are siblings."""
    torch.manual_seed(0)
    vision = VisionTower(build_backbone("test_resnet", size=32), dim=16, classes={}).eval()
    config = FusionConfig(dim=16, hidden=16)
    fusion = build_fusion(config, {"image": 16}).eval()
    embedder = ItemEmbedder(vision, None, fusion)
    items = table(*(item(one, "square", one.split("-")[0]) for one in PICTURES))
    embeddings = embedder.items(items, list(PICTURES.values()))
    rows, none = torch.arange(len(PICTURES)), torch.zeros(0, dtype=torch.long)
    pictures = torch.from_numpy(embeddings)
    gallery = Gallery(pictures, rows, pictures[:0], none, head_rows=none)
    contents = Contents(
        items,
        embeddings,
        fusion,
        vision=vision,
        identification=IdentificationPart(gallery, CALIBRATION, words={"blue-4": ("PUNGENT",)}),
    )
    return Bundle(write_bundle(contents, tmp_path_factory.mktemp("bundles")))


@pytest.fixture
def identifier(bundle: Bundle) -> ProductIdentifier:
    return ProductIdentifier(Recommender(bundle))


def ids(answer: Identification) -> list[str]:
    return [one.item_id for one in answer.candidates]


def test_every_picture_shows_its_product_first(identifier: ProductIdentifier) -> None:
    for item_id, picture in PICTURES.items():
        answer = identifier.identify(picture)
        assert ids(answer)[0] == item_id
        assert answer.known
        assert answer.product_group is not None
        assert answer.product_group.item_ids[0] == item_id
        assert answer.product_group.probability >= 0.8
        n_named = len(answer.product_group.item_ids)
        assert answer.verdict == ("product" if n_named == 1 else "group")
        assert answer.bundle_version == identifier.recommender.version


def test_probabilities_of_all_products_add_up_to_that_of_being_in_the_catalogue(
    identifier: ProductIdentifier,
) -> None:
    answer = identifier.identify(PICTURES["red-7"], k=len(PICTURES))
    scores = [one.score for one in answer.candidates]
    assert sum(scores) == pytest.approx(answer.probability, abs=1e-5)
    assert scores == sorted(scores, reverse=True)


def test_a_bundle_that_cannot_promise_the_precision_says_so_in_every_answer(
    bundle: Bundle, identifier: ProductIdentifier
) -> None:
    assert identifier.identify(PICTURES["red-7"]).degraded == ()
    part = bundle.identification
    never = replace(part.calibration, named=OperatingPoint(None, 0.8, 0.0), wanted_precision=0.95)
    identifier.calibration = never
    answer = identifier.identify(PICTURES["red-7"])
    assert answer.degraded == (PRECISION_NOT_REACHED,)
    assert (answer.verdict, answer.product_group) == ("unsure", None)
    assert answer.candidates[0].item_id == "red-7"


def test_siblings_that_look_the_same_are_named_together(identifier: ProductIdentifier) -> None:
    twin = PICTURES["green-7"]
    identifier.add_items(table(item("green-twin", "square", "green")), [twin])
    answer = identifier.identify(twin)
    assert answer.verdict == "group"
    assert answer.product_group is not None
    assert set(answer.product_group.item_ids[:2]) == {"green-7", "green-twin"}
    assert answer.product_group.category == ("square", "green")
    assert answer.product_group.probability >= 0.8
    first, second = (one.score for one in answer.candidates[:2])
    assert first == pytest.approx(second, abs=ROUNDING)


def test_a_product_added_with_one_picture_is_identified_at_once(
    identifier: ProductIdentifier,
) -> None:
    picture = encode(square((250, 250, 20), 15))
    before = identifier.identify(picture)
    assert before.verdict == "unknown"
    identifier.add_items(table(item("fresh")), [picture])
    after = identifier.identify(picture)
    assert ids(after)[0] == "fresh"
    assert after.verdict == "product"
    assert after.product_group is not None
    assert after.product_group.category == ()
    identifier.recommender.delete_items(["fresh"])
    again = identifier.identify(picture, k=500)
    assert again.probability == pytest.approx(before.probability, abs=ROUNDING)


def test_an_item_that_loses_its_picture_is_no_longer_found_by_it(
    identifier: ProductIdentifier,
) -> None:
    before = identifier.identify(PICTURES["blue-4"])
    identifier.add_items(table(item("blue-4", "square", "blue")), [None])
    after = identifier.identify(PICTURES["blue-4"])
    assert ids(before)[0] == "blue-4"
    assert "blue-4" not in [one.item_id for one in after.candidates if one.score > 0]


def test_the_bundles_pictures_can_be_restored(identifier: ProductIdentifier) -> None:
    rows = table(item("blue-4", "square", "blue"), item("fresh"))
    identifier.add_items(rows, [PICTURES["red-7"], PICTURES["green-7"]])
    assert ids(identifier.identify(PICTURES["blue-4"]))[0] != "blue-4"

    identifier.reset_pictures(["fresh", "blue-4"])

    assert ids(identifier.identify(PICTURES["blue-4"]))[0] == "blue-4"
    found = identifier.identify(PICTURES["green-7"], k=500).candidates
    scores = {one.item_id: one.score for one in found}
    assert scores["fresh"] < scores["green-7"] / 10


def test_words_on_a_picture_find_the_item_as_long_as_it_has_that_picture(
    identifier: ProductIdentifier,
) -> None:
    def found() -> list[str]:
        answer = identifier.recommender.search("pungent", mode="lexical")
        return [one.item_id for one in answer]

    assert found() == ["blue-4"]
    assert identifier.identify(PICTURES["blue-4"]).words == (), "those on photos are not read"
    row = table(item("blue-4", "square", "blue"))
    identifier.add_items(row, [PICTURES["red-7"]])
    assert found() == []
    identifier.reset_pictures(["blue-4"])
    assert found() == ["blue-4"]
    identifier.recommender.add_items(row, [PICTURES["red-7"]])
    assert found() == []


def test_a_labelled_photo_counts_at_once(identifier: ProductIdentifier) -> None:
    photo = encode(square((250, 250, 20), 15))
    identifier.add_photos(["red-4"], [photo])
    answer = identifier.identify(photo)
    assert ids(answer)[0] == "red-4"
    assert answer.verdict == "product"


def test_a_photo_turned_by_its_exif_tag_is_identified_as_the_upright_one(
    identifier: ProductIdentifier,
) -> None:
    upright = square(COLOURS["red"], 10)
    turned = Image.Exif()
    turned[0x0112] = 6  # a viewer turns it clockwise by 90 degrees
    photo = encode(np.rot90(upright), exif=turned)
    wanted, answer = identifier.identify(encode(upright)), identifier.identify(photo)
    assert ids(answer) == ids(wanted)
    assert answer.probability == pytest.approx(wanted.probability, abs=ROUNDING)
    sideways = identifier.identify(encode(np.rot90(upright)))
    assert sideways.probability != pytest.approx(wanted.probability, abs=10 * ROUNDING)


def shelf() -> np.ndarray:
    tiles = [np.asarray(Image.open(io.BytesIO(one))) for one in PICTURES.values()]
    return np.concatenate([np.concatenate(tiles[n : n + 4], axis=1) for n in (0, 4, 8)])


def screenshot() -> np.ndarray:
    pixels = np.full((200, 100, 3), 245)
    pixels[::8, 10:90] = 30
    pixels[:16] = 60
    return pixels


@pytest.mark.parametrize(
    "pixels",
    [np.full((64, 64, 3), 255), np.zeros((1, 1, 3)), screenshot(), shelf()],
    ids=["blank", "one pixel", "screenshot", "shelf"],
)
def test_a_photo_without_a_single_product_names_no_product(
    identifier: ProductIdentifier, pixels: np.ndarray
) -> None:
    answer = identifier.identify(encode(pixels))
    assert answer.product_group is None
    assert 0 <= answer.probability < 0.8
    assert not answer.known
    assert answer.verdict == ("unsure" if answer.probability >= 0.5 else "unknown")
    assert all(0 <= one.score <= answer.probability for one in answer.candidates)


def test_many_photos_are_identified_as_one_by_one(bundle: Bundle) -> None:
    identifier = ProductIdentifier(Recommender(bundle), pairs_at_once=2 * len(PICTURES))
    photos = list(PICTURES.values())[:5]
    together = identifier.identify_many(photos)
    for answer, photo in zip(together, photos, strict=True):
        alone = identifier.identify(photo)
        assert ids(answer) == ids(alone)
        assert answer.probability == pytest.approx(alone.probability, abs=ROUNDING)


def test_a_bundle_without_labelled_photos_is_refused(tiny_run: Run) -> None:
    recommender = Recommender(Bundle(tiny_run.ablations["text-only"]))
    with pytest.raises(MissingPartError, match="no 'identification' part"):
        ProductIdentifier(recommender)


def test_an_unreadable_photo_is_refused_by_its_index(identifier: ProductIdentifier) -> None:
    with pytest.raises(InvalidImageError, match="image 0"):
        identifier.identify(b"not an image")
    with pytest.raises(InvalidImageError, match="image 1"):
        identifier.identify_many([PICTURES["red-4"], b"not an image"])


def test_a_k_out_of_range_is_refused_before_a_photo_is_read(identifier: ProductIdentifier) -> None:
    with pytest.raises(InvalidArgumentError, match="k must be a whole number between"):
        identifier.identify(b"not an image", k=0)


def test_what_is_no_photo_is_refused(identifier: ProductIdentifier) -> None:
    nothing: Any = None
    with pytest.raises(InvalidArgumentError, match="bytes, a path or an opened image, got None"):
        identifier.identify(nothing)
    with pytest.raises(InvalidArgumentError, match="must be a list of images, got one NoneType"):
        identifier.identify_many(nothing)


def test_labelled_photos_of_unknown_items_are_refused(identifier: ProductIdentifier) -> None:
    with pytest.raises(UnknownItemError, match="stranger"):
        identifier.add_photos(["stranger"], [PICTURES["red-4"]])


def test_lists_of_different_lengths_are_refused(identifier: ProductIdentifier) -> None:
    with pytest.raises(InvalidArgumentError, match=r"one entry per item_id \(2\), got 1"):
        identifier.add_photos(["red-4", "red-7"], [PICTURES["red-4"]])
    with pytest.raises(InvalidArgumentError, match=r"one entry per item \(1\), got 0"):
        identifier.add_items(table(item("new")), [])


def test_an_unreadable_picture_adds_no_item(identifier: ProductIdentifier) -> None:
    with pytest.raises(InvalidImageError, match=r"^image cannot be decoded"):
        identifier.add_items(table(item("new")), [b"not an image"])
    assert "new" not in identifier.recommender.catalogue


def test_added_items_are_counted(identifier: ProductIdentifier) -> None:
    added = identifier.add_items(table(item("new"), item("red-4", "square", "red")), [None, None])
    assert added.added == 2
    assert added.bundle_version == identifier.recommender.version


def test_a_photo_may_be_bytes_a_path_or_an_opened_image(
    identifier: ProductIdentifier, tmp_path: Path
) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(PICTURES["red-7"])
    wanted = identifier.identify(PICTURES["red-7"])
    assert identifier.identify(path) == wanted
    assert identifier.identify(Image.open(path)) == wanted


def test_an_identifier_is_loaded_from_a_bundles_folder(
    bundle: Bundle, identifier: ProductIdentifier
) -> None:
    loaded = ProductIdentifier.load(bundle.path)
    assert loaded.identify(PICTURES["red-7"], 3) == identifier.identify(PICTURES["red-7"], 3)


def test_a_trained_bundles_probabilities_hold_on_photos_it_never_saw(
    tiny_bundle: Path, tiny_shop: Shop
) -> None:
    identifier = ProductIdentifier.load(tiny_bundle)
    photos = pl.read_parquet(tiny_shop.photos).filter(split="test").drop_nulls("item_id")
    answers = identifier.identify_many([tiny_shop.images / name for name in photos["image"]])
    first = [answer.candidates[0] for answer in answers]
    right = [one.item_id == item_id for one, item_id in zip(first, photos["item_id"], strict=True)]
    assert np.mean([one.score for one in first]) == pytest.approx(np.mean(right), abs=0.1)
    assert np.mean([answer.probability for answer in answers]) > 0.5


def test_a_trained_bundles_calibration_says_what_it_was_fitted_on(
    tiny_bundle: Path, tiny_shop: Shop
) -> None:
    calibration = ProductIdentifier.load(tiny_bundle).calibration
    photos = pl.read_parquet(tiny_shop.photos).drop_nulls("item_id")
    assert isinstance(calibration, Calibration)
    assert calibration.n_photos == len(photos.filter(split="val"))
    assert calibration.error is not None
    assert 0 <= calibration.error < 0.1


def test_a_trained_bundles_gallery_has_the_pictures_and_the_photos_of_train(
    tiny_bundle: Path, tiny_shop: Shop
) -> None:
    identifier = ProductIdentifier.load(tiny_bundle)
    items, photos = pl.read_parquet(tiny_shop.items), pl.read_parquet(tiny_shop.photos)
    train = photos.filter(split="train").drop_nulls("item_id")
    rows = identifier.recommender.catalogue.rows(train["item_id"])
    assert identifier.gallery.photo_rows.tolist() == rows.tolist()
    assert len(identifier.gallery.pictures) == items["image"].count()
