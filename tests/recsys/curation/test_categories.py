"""A category from a few pictures: in a new bundle, beside all that the old one knew."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recsys.bundle import Bundle, Contents, write_bundle
from recsys.config import AnnotationConfig, FusionConfig
from recsys.curation.annotation import annotate
from recsys.curation.categories import add_category, new_levels
from recsys.errors import InvalidArgumentError, InvalidImageError, MissingPartError
from recsys.identification.calibration import Calibration, OperatingPoint
from recsys.identification.evidence import Gallery
from recsys.identification.stored import IdentificationPart
from recsys.models.fusion import build_fusion
from recsys.training.heads import see_heads
from recsys.training.stages import Runtime, Workspace
from tests.planted import coloured_square
from vision.dataset import Samples
from vision.labelling.class_means import with_class_means
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower

CLASSES = {
    "category_1": ["Home", "Toys"],
    "category_2": ["Home > Lamps", "Home > Mugs", "Toys > Cars"],
    "attribute_material": ["glass", "wood"],
}
COLOURS = {"lamp": (220, 30, 30), "mug": (30, 200, 30), "car": (30, 30, 220)}
VASE = (230, 220, 40)


def _squares(folder: Path, colour: tuple[int, int, int], name: str, count: int) -> list[Path]:
    rng = np.random.default_rng(len(name))
    paths = [folder / f"{name}-{n}.png" for n in range(count)]
    for path in paths:
        left, top = (int(rng.integers(2, 10)) for _ in range(2))
        tint = tuple(int(value) for value in np.clip(colour + rng.integers(-20, 20, 3), 0, 255))
        coloured_square(tint, left=left, top=top, side=20).save(path)
    return paths


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of bundles with one bundle, whose tower tells three colours apart."""
    root = tmp_path_factory.mktemp("shop")
    images = [path for name, colour in COLOURS.items() for path in _squares(root, colour, name, 12)]
    samples = Samples(
        images,
        {
            "category_1": np.repeat([0, 0, 1], 12),
            "category_2": np.repeat([0, 1, 2], 12),
            "attribute_material": np.full(36, -1),
        },
        CLASSES,
    )
    third = np.arange(36) % 3 == 2
    train, held_out = samples.take(np.flatnonzero(~third)), samples.take(np.flatnonzero(third))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tower = VisionTower(build_backbone("test_resnet", size=32), dim=8, classes=CLASSES).eval()
        fusion = build_fusion(FusionConfig(dim=8, hidden=8), {"image": 8})
    tower = with_class_means(tower, train)
    runtime = Runtime(Workspace(root / "stages", announce=lambda name: None), "cpu")
    rows = [torch.arange(3) for _ in range(3)]
    vectors = torch.eye(8)
    gallery = Gallery(
        vectors[:3].clone(), rows[0], vectors[3:6].clone(), rows[1], head_rows=rows[2]
    )
    points = {"known": OperatingPoint(0.6), "named": OperatingPoint(0.7)}
    calibration = Calibration((1.0,) * 4, (0.0,) * 4, 0.5, **points)
    contents = Contents(
        items=pl.DataFrame({"item_id": ["a", "b", "c"]}),
        item_embeddings=np.eye(3, 8, dtype=np.float32),
        fusion=fusion,
        vision=tower,
        identification=IdentificationPart(gallery, calibration, head="category_2"),
        heads=see_heads(tower, train, held_out, AnnotationConfig(thresholds=True), runtime),
    )
    write_bundle(contents, root / "bundles")
    return root / "bundles"


@pytest.fixture
def vases(tmp_path: Path) -> list[Path]:
    """Ten pictures of a yellow square."""
    return _squares(tmp_path, VASE, "vase", 10)


def test_a_new_category_is_annotated_and_the_others_stay(shop: Path, vases: list[Path]) -> None:
    old = Bundle(shop)
    folder = vases[0].parent
    known = [one for name in COLOURS for one in _squares(folder, COLOURS[name], f"new-{name}", 4)]
    added = add_category(shop, "Home > Vases", vases[:5])
    new = Bundle(shop)
    assert new.path == added.bundle != old.path, "the new bundle is the latest"
    assert new.vision.classes["category_2"] == (*CLASSES["category_2"], "Home > Vases")
    assert new.vision.classes["category_1"] == ("Home", "Toys"), "the parent was there"
    assert annotate(new, vases[5:])["category"].to_list() == [["Home", "Vases"]] * 5
    before, after = (annotate(one, known, min_probability=0.0) for one in (old, new))
    assert after["category"].to_list() == before["category"].to_list()
    assert after.select("^attribute.*$").equals(before.select("^attribute.*$"))
    with pytest.raises(InvalidArgumentError, match="new category, got 'Home > Vases'"):
        add_category(new, "Home > Vases", vases)


def test_everything_else_is_copied_byte_for_byte(shop: Path, vases: list[Path]) -> None:
    old = Bundle(next(iter(sorted(shop.glob("[0-9a-f]*")))))
    new = Bundle(add_category(old, ("Garden", "Chairs"), vases[:1]).bundle)
    assert new.vision.classes["category_1"][-1] == "Garden"
    assert new.vision.classes["category_2"][-1] == "Garden > Chairs"
    changed = {"manifest.json", "bundle.json", "gallery.safetensors"}
    for path in (one for one in old.path.rglob("*") if one.is_file()):
        inside = path.relative_to(old.path)
        if inside.parts[0] != "vision" and inside.name not in changed:
            assert (new.path / inside).read_bytes() == path.read_bytes()
    gallery = new.identification.gallery
    assert gallery.head_rows.tolist()[-1] == -1, "a category that is no product"
    assert len(gallery.head_rows) == len(new.vision.classes["category_2"])
    described = json.loads((new.path / "bundle.json").read_text())
    assert described["added_categories"][-1] == {"category": ["Garden", "Chairs"], "pictures": 1}


def test_what_is_kept_of_the_pictures_comes_back(shop: Path) -> None:
    heads = Bundle(shop).heads
    assert heads.learned.features.dtype == np.float32
    assert len(heads.held_out.features) == 12
    assert heads.held_out.labels["category_2"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    fitted = {"category_1", "category_2"}
    assert set(heads.reading.temperatures) == fitted, "no material is known"
    assert {name: len(one) for name, one in heads.reading.thresholds.items()} == {
        "category_1": 2,
        "category_2": 3,
    }


def test_new_levels_are_those_that_the_tower_lacks() -> None:
    added = new_levels(CLASSES, ("Garden", "Chairs"))
    assert added == {"category_1": "Garden", "category_2": "Garden > Chairs"}
    assert new_levels(CLASSES, ("Books",)) == {"category_1": "Books"}
    single = {"category_2": CLASSES["category_2"]}  # all of one category on the level above
    assert new_levels(single, ("Home", "Vases")) == {"category_2": "Home > Vases"}


def test_bad_input_is_named(shop: Path, vases: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="got 'Home', which the bundle has"):
        add_category(shop, "Home", vases)
    with pytest.raises(InvalidArgumentError, match=r"path of 1 to 2 levels.* got 'Home > A > B'"):
        add_category(shop, "Home > A > B", vases)
    with pytest.raises(InvalidArgumentError, match=r"path of 1 to 2 levels.* got ''"):
        add_category(shop, " > ", vases)
    with pytest.raises(InvalidArgumentError, match="pictures of 'Home > A' must be one or more"):
        add_category(shop, "Home > A", [])
    torn = tmp_path / "torn.png"
    torn.write_bytes(b"not a picture")
    with pytest.raises(InvalidImageError, match=r"torn\.png: "):
        add_category(shop, "Home > A", [vases[0], torn])


def test_a_bundle_without_what_it_needs_is_refused(
    shop: Path, vases: list[Path], tmp_path: Path
) -> None:
    whole = Bundle(shop)
    common = Contents(whole.items, whole.item_embeddings, whole.fusion)
    blind = Bundle(write_bundle(common, tmp_path / "blind"))
    with pytest.raises(MissingPartError, match="no 'vision' part"):
        add_category(blind, "Vases", vases)
    seeing = Contents(whole.items, whole.item_embeddings, whole.fusion, vision=whole.vision)
    without = Bundle(write_bundle(seeing, tmp_path / "without"))
    with pytest.raises(MissingPartError, match="train again with some photos whose split is val"):
        add_category(without, "Vases", vases)
    with pytest.raises(MissingPartError, match="learned no categories"):
        new_levels({"attribute_material": ["glass", "wood"]}, ("Vases",))
