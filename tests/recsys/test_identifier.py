"""Planted bundle: untrained towers and known weights, so that the right answer is worked out."""

import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from recsys.bundle import Bundle, Contents, write_bundle
from recsys.catalogue.embedder import ItemEmbedder
from recsys.config import FusionConfig
from recsys.errors import InvalidImageError, MissingPartError, UnknownItemError
from recsys.identification.calibration import Calibration, OperatingPoint
from recsys.identification.evidence import Gallery
from recsys.identification.stored import IdentificationPart
from recsys.identifier import Identified, ProductIdentifier
from recsys.models.fusion import build_fusion
from recsys.pipeline import Run
from recsys.recommender import Recommender
from recsys.schema import ItemSchema
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
SIDES = (4, 7, 10, 13)
POINT = OperatingPoint(0.8, precision=0.95, coverage=0.9)
# Only cosines to pictures and to labelled photos count; from 0.985 on they speak for a product.
# Weighed like that, the rounding of a cosine moves a probability by up to ROUNDING.
ROUNDING = 1e-3
CALIBRATION = Calibration(
    weights=(300.0, 0.0, 3_000.0, 0.0),
    pivots=(0.985, 0.0, 0.985, 0.0),
    unknown=0.0,
    known=POINT,
    named=POINT,
)


def encode(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, kind, **options)
    return file.getvalue()


def square(colour: tuple[int, int, int], side: int) -> np.ndarray:
    """Return a coloured square on grey, whose top is darker: it has an upright."""
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
        config,
        vision=vision,
        identification=IdentificationPart(gallery, CALIBRATION),
    )
    return Bundle(write_bundle(contents, tmp_path_factory.mktemp("bundles")))


@pytest.fixture
def identifier(bundle: Bundle) -> ProductIdentifier:
    return ProductIdentifier(Recommender(bundle))


def ids(answer: Identified) -> list[str]:
    return [one.item_id for one in answer.candidates]


def test_every_picture_shows_its_product_first(identifier: ProductIdentifier) -> None:
    for item_id, picture in PICTURES.items():
        answer = identifier.identify(picture)
        assert ids(answer)[0] == item_id
        assert answer.known
        assert answer.verdict in ("product", "group")
        assert answer.answer is not None
        assert answer.answer.item_ids[0] == item_id


def test_probabilities_of_all_products_add_up_to_that_of_being_in_the_catalogue(
    identifier: ProductIdentifier,
) -> None:
    answer = identifier.identify(PICTURES["red-7"], k=len(PICTURES))
    scores = [one.score for one in answer.candidates]
    assert sum(scores) == pytest.approx(answer.probability, abs=1e-5)
    assert scores == sorted(scores, reverse=True)


def test_siblings_that_look_the_same_are_answered_together(identifier: ProductIdentifier) -> None:
    twin = PICTURES["green-7"]
    identifier.upsert(table(item("green-twin", "square", "green")), [twin])
    answer = identifier.identify(twin)
    assert answer.verdict == "group"
    assert answer.answer is not None
    assert set(answer.answer.item_ids[:2]) == {"green-7", "green-twin"}
    assert answer.answer.category == ("square", "green")
    assert answer.answer.probability >= 0.8
    first, second = (one.score for one in answer.candidates[:2])
    assert first == pytest.approx(second, abs=ROUNDING)


def test_a_product_added_with_one_picture_is_identified_at_once(
    identifier: ProductIdentifier,
) -> None:
    picture = encode(square((250, 250, 20), 15))
    before = identifier.identify(picture)
    assert before.verdict == "unknown"
    identifier.upsert(table(item("fresh")), [picture])
    after = identifier.identify(picture)
    assert ids(after)[0] == "fresh"
    assert after.verdict == "product"
    assert after.answer is not None
    assert after.answer.category == ()
    identifier.recommender.delete(["fresh"])
    again = identifier.identify(picture, k=500)
    assert again.probability == pytest.approx(before.probability, abs=ROUNDING)


def test_an_item_that_loses_its_picture_is_no_longer_found_by_it(
    identifier: ProductIdentifier,
) -> None:
    before = identifier.identify(PICTURES["blue-4"])
    identifier.upsert(table(item("blue-4", "square", "blue")), [None])
    after = identifier.identify(PICTURES["blue-4"])
    assert ids(before)[0] == "blue-4"
    assert "blue-4" not in [one.item_id for one in after.candidates if one.score > 0]


def test_the_bundles_pictures_can_be_taken_again(identifier: ProductIdentifier) -> None:
    rows = table(item("blue-4", "square", "blue"), item("fresh"))
    identifier.upsert(rows, [PICTURES["red-7"], PICTURES["green-7"]])
    assert ids(identifier.identify(PICTURES["blue-4"]))[0] != "blue-4"

    identifier.reset_pictures(["fresh", "blue-4"])

    assert ids(identifier.identify(PICTURES["blue-4"]))[0] == "blue-4"
    found = identifier.identify(PICTURES["green-7"], k=500).candidates
    scores = {one.item_id: one.score for one in found}
    assert scores["fresh"] < scores["green-7"] / 10


def test_a_labelled_photo_counts_at_once(identifier: ProductIdentifier) -> None:
    photo = encode(square((250, 250, 20), 15))
    identifier.add_photos(["red-4"], [photo])
    answer = identifier.identify(photo)
    assert ids(answer)[0] == "red-4"
    assert answer.verdict == "product"


def test_a_turned_photo_is_answered_as_the_upright_one(identifier: ProductIdentifier) -> None:
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
def test_a_photo_of_no_single_product_names_none(
    identifier: ProductIdentifier, pixels: np.ndarray
) -> None:
    answer = identifier.identify(encode(pixels))
    assert answer.answer is None
    assert answer.verdict in ("unsure", "unknown")
    assert 0 <= answer.probability < 0.8
    assert all(0 <= one.score <= answer.probability for one in answer.candidates)


def test_many_photos_are_answered_as_one_by_one(
    identifier: ProductIdentifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.identifier._CELLS", 2 * len(PICTURES))
    photos = list(PICTURES.values())[:5]
    together = identifier.identify_photos(identifier.look(photos))
    for answer, photo in zip(together, photos, strict=True):
        alone = identifier.identify(photo)
        assert ids(answer) == ids(alone)
        assert answer.probability == pytest.approx(alone.probability, abs=ROUNDING)


def test_a_bundle_without_photos_says_that_it_cannot_identify(tiny_run: Run) -> None:
    recommender = Recommender(Bundle(tiny_run.ablations["text-only"]))
    with pytest.raises(MissingPartError, match="no 'identification' part"):
        ProductIdentifier(recommender)


def test_bad_input_is_refused(identifier: ProductIdentifier) -> None:
    with pytest.raises(InvalidImageError, match="image 0"):
        identifier.identify(b"not a picture")
    with pytest.raises(ValueError, match="k must be between"):
        identifier.identify(PICTURES["red-4"], k=0)
    with pytest.raises(UnknownItemError, match="stranger"):
        identifier.add_photos(["stranger"], [PICTURES["red-4"]])
    with pytest.raises(ValueError, match=r"one entry per item_id \(2\), got 1"):
        identifier.add_photos(["red-4", "red-7"], [PICTURES["red-4"]])
    with pytest.raises(ValueError, match=r"one entry per item \(1\), got 0"):
        identifier.upsert(table(item("new")), [])


def test_a_trained_bundle_identifies_with_calibrated_probabilities(tiny_bundle: Path) -> None:
    identifier = ProductIdentifier(Recommender(Bundle(tiny_bundle)))
    assert isinstance(identifier.calibration, Calibration)
    assert identifier.calibration.n_photos > 0
    assert identifier.calibration.error is not None
    assert len(identifier.gallery.photos) > 0
    assert len(identifier.gallery.pictures) > 0
