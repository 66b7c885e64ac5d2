"""What pictures show: the heads' answers, made to agree and cut off where they are unsure."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from recsys.bundle import Bundle, Contents, write_bundle
from recsys.config import FusionConfig
from recsys.curation.annotation import annotate, fit_temperatures
from recsys.errors import InvalidImageError, MissingPartError
from recsys.identification.annotation import annotate_photos
from recsys.identification.heads import Reading
from recsys.models.fusion import build_fusion
from tests.odd_pictures import broken, readable
from tests.recsys.curation.annotation.conftest import CLASSES, COLOURS
from vision.dataset import Samples
from vision.hierarchy import choose_classes, find_category_paths, reconcile_levels
from vision.labelling.thresholds import apply_thresholds
from vision.palette import name_colours
from vision.report.calibration import at_temperature, fit_temperature

LEVELS = ("category_1", "category_2")


def test_every_head_but_that_of_the_product_has_columns(
    bundle: Bundle, pictures: list[Path]
) -> None:
    assert annotate(bundle, pictures).schema == {
        "category": pl.List(pl.String),
        "category_probability": pl.Float64,
        "attribute_material": pl.String,
        "attribute_material_probability": pl.Float64,
        "attribute_usage": pl.String,
        "attribute_usage_probability": pl.Float64,
        "colours": pl.List(pl.Struct({"colour": pl.String, "share": pl.Float64})),
    }


def test_attributes_are_the_most_probable_classes_of_the_tower(
    bundle: Bundle, pictures: list[Path]
) -> None:
    found = annotate(bundle, pictures, min_probability=0.0)
    probabilities = bundle.vision.predict_proba(pictures)
    for target in ("attribute_material", "attribute_usage"):
        rows = probabilities[target]
        names = [CLASSES[target][best] for best in rows.argmax(axis=1)]
        assert found[target].to_list() == names
        np.testing.assert_allclose(found[f"{target}_probability"], rows.max(axis=1), atol=1e-5)


def test_a_category_ends_where_the_tower_is_unsure(bundle: Bundle, pictures: list[Path]) -> None:
    probabilities = bundle.vision.predict_proba(pictures)
    paths = find_category_paths({level: CLASSES[level] for level in LEVELS})
    agreed = reconcile_levels({level: probabilities[level] for level in LEVELS}, paths)
    chosen = choose_classes(agreed, paths)
    lengths = set()
    for min_probability in (0.0, 0.5, 0.8, 0.9, 1.0):
        found = annotate(bundle, pictures, min_probability=min_probability)
        for row, (category, probability) in enumerate(
            found.select("category", "category_probability").iter_rows()
        ):
            wanted, of = None, agreed["category_1"][row, chosen["category_1"][row]]
            for level in LEVELS:
                own = agreed[level][row, chosen[level][row]]
                if own >= min_probability:
                    wanted, of = CLASSES[level][chosen[level][row]].split(" > "), own
            assert category == wanted
            assert probability == pytest.approx(of, abs=1e-5)
            lengths.add(len(category or []))
    assert lengths == {0, 1, 2}, "all three cases were seen"


def test_what_is_filled_in_is_probable_enough_and_the_rest_is_null(
    bundle: Bundle, pictures: list[Path]
) -> None:
    everything = annotate(bundle, pictures, min_probability=0.0)
    assert everything.null_count().sum_horizontal().item() == 0
    some = annotate(bundle, pictures, min_probability=0.9)
    for name in ("category", "attribute_material", "attribute_usage"):
        sure = some[f"{name}_probability"] >= 0.9
        assert some[name].is_not_null().equals(sure.rename(name))
    material = ("attribute_material", "attribute_material_probability")
    assert some["attribute_material_probability"].equals(everything[material[1]])
    assert 0 < some["attribute_material"].null_count() < len(pictures)


def test_colours_are_those_of_the_palette(bundle: Bundle, pictures: list[Path]) -> None:
    found = annotate(bundle, pictures)["colours"].to_list()
    assert [[one["colour"] for one in row] for row in found] == [[c] for c in COLOURS * 2]
    with Image.open(pictures[0]) as picture:
        assert found[0] == [one._asdict() for one in name_colours(picture)]


def test_pictures_bytes_and_paths_give_the_same_in_any_batch(
    bundle: Bundle, pictures: list[Path]
) -> None:
    whole = annotate(bundle, pictures * 9)
    assert len(whole) == 72, "more than a batch"
    opened = [Image.open(path) for path in pictures]
    for images in ([path.read_bytes() for path in pictures], opened, pictures):
        found = annotate(bundle, images)
        assert found.drop("colours").to_dict(as_series=False) == {
            name: values if "probability" not in name else pytest.approx(values, abs=1e-5)
            for name, values in whole[:8].drop("colours").to_dict(as_series=False).items()
        }
        assert found["colours"].equals(whole[:8]["colours"])
    assert annotate(bundle, []).schema == whole.schema


def test_a_tower_without_heads_gives_colours(
    headed: Callable[..., Bundle], pictures: list[Path]
) -> None:
    assert annotate(headed({}), pictures).columns == ["colours"]


def test_one_level_is_a_category_too(headed: Callable[..., Bundle], pictures: list[Path]) -> None:
    single = headed({"category_2": CLASSES["category_2"]})
    found = annotate(single, pictures, min_probability=0.0)
    assert set(found["category"].list.join(" > ")) <= set(CLASSES["category_2"])


def test_a_path_that_ends_early_is_a_complete_category(
    headed: Callable[..., Bundle], pictures: list[Path]
) -> None:
    early = headed({**CLASSES, "category_1": ["Books", "Home", "Toys"]})
    with torch.no_grad():
        early.vision.heads[0].bias.copy_(torch.tensor([200.0, 0.0, 0.0]))
    found = annotate(early, pictures, min_probability=0.0)
    assert found["category"].to_list() == [["Books"]] * 8
    assert found["category_probability"].to_list() == pytest.approx([1.0] * 8)


def test_temperatures_are_applied_before_levels_are_made_to_agree(
    bundle: Bundle, pictures: list[Path]
) -> None:
    found = annotate(bundle, pictures, min_probability=0.0, temperatures={"attribute_usage": 3.0})
    wanted = at_temperature(bundle.vision.predict_proba(pictures)["attribute_usage"], 3.0).max(
        axis=1
    )
    np.testing.assert_allclose(found["attribute_usage_probability"], wanted, atol=1e-5)
    flat = annotate(bundle, pictures, min_probability=0.0, temperatures=dict.fromkeys(LEVELS, 1e6))
    np.testing.assert_allclose(flat["category_probability"], 0.5 * 0.5, atol=0.1)


def test_thresholds_choose_the_class_and_the_probability_is_its_own(
    bundle: Bundle, pictures: list[Path]
) -> None:
    thresholds = {
        "attribute_material": [0.5, 1.0, 4.0],
        "category_1": [1.0, 1.0],
        "category_2": [1e-6, 1.0],  # the third class was added later
    }
    found = annotate_photos(
        bundle.vision, pictures, Reading(thresholds=thresholds), min_probability=0.0
    )
    rows = bundle.vision.predict_proba(pictures)["attribute_material"]
    chosen = apply_thresholds(rows, np.array(thresholds["attribute_material"]))
    assert (chosen != rows.argmax(axis=1)).any()
    assert found["attribute_material"].to_list() == [
        CLASSES["attribute_material"][n] for n in chosen
    ]
    own = rows[np.arange(len(rows)), chosen]
    np.testing.assert_allclose(found["attribute_material_probability"], own, atol=1e-5)
    usage = annotate(bundle, pictures, min_probability=0.0)["attribute_usage"]
    assert found["attribute_usage"].equals(usage), "a target without thresholds"
    assert set(found["category"].list.join(" > ")) == {"Home > Lamps"}, "a very low threshold"


def test_temperatures_are_fitted_where_there_are_labels(
    bundle: Bundle, pictures: list[Path]
) -> None:
    labels = np.array([0, 1, 2, -1, 0, 1, 2, -1])
    samples = Samples(
        images=[Path(path.name) for path in pictures],
        targets={"attribute_material": labels, "attribute_usage": np.full(8, -1)},
        classes={name: CLASSES[name] for name in ("attribute_material", "attribute_usage")},
        root=pictures[0].parent,
    )
    wanted = fit_temperature(bundle.vision.predict_proba(pictures)["attribute_material"], labels)
    assert fit_temperatures(bundle.vision, samples) == {
        "attribute_material": pytest.approx(wanted, rel=1e-3)
    }


@pytest.mark.parametrize("name", readable())
def test_odd_pictures_are_annotated(bundle: Bundle, name: str) -> None:
    assert len(annotate(bundle, [readable()[name]])) == 1


@pytest.mark.parametrize("name", broken())
def test_broken_pictures_are_refused_by_index(
    bundle: Bundle, pictures: list[Path], name: str
) -> None:
    with pytest.raises(InvalidImageError, match="image 8: "):
        annotate(bundle, [*(path.read_bytes() for path in pictures), broken()[name]])


def test_invalid_arguments_are_named(bundle: Bundle, pictures: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"min_probability must be from 0 to 1, got 1.5"):
        annotate(bundle, pictures, min_probability=1.5)
    with pytest.raises(ValueError, match=r"targets category_1, .*, got 'usage'"):
        annotate(bundle, pictures, temperatures={"usage": 1.0})
    with pytest.raises(ValueError, match=r"temperature must be above 0, got 0"):
        annotate(bundle, pictures, temperatures={"attribute_usage": 0.0})


def test_a_bundle_without_a_tower_is_refused(pictures: list[Path], tmp_path: Path) -> None:
    config = FusionConfig(dim=8, hidden=8)
    contents = Contents(
        items=pl.DataFrame({"item_id": ["a"]}),
        item_embeddings=np.zeros((1, 8), np.float32),
        fusion=build_fusion(config, {"text": 8}),
    )
    blind = Bundle(write_bundle(contents, tmp_path / "bundles"))
    with pytest.raises(MissingPartError, match="no 'vision' part"):
        annotate(blind, pictures)
