import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from recsys import ProductIdentifier, Recommender
from recsys.bundle import Bundle
from recsys.curation.annotation import annotate
from recsys.curation.variants import find_variants
from recsys.data.synthetic import Shop
from tests.planted import smooth_picture

Ask = Callable[..., Any]
Say = Callable[..., str]


def test_items_are_annotated_from_their_pictures(
    tiny_bundle: Path, tiny_shop: Shop, tmp_path: Path, ask: Ask, say: Say
) -> None:
    out = tmp_path / "out.parquet"
    command = ("annotate", tiny_bundle, "--images-root", tiny_shop.images, "--out", out)
    answer = ask(*command, "--items", tiny_shop.items, "--min-probability", 0)
    found, items = pl.read_parquet(out), Bundle(tiny_bundle).items
    pictured = items.filter(pl.col("image").is_not_null())
    assert answer["rows"] == len(found) == len(pictured)
    assert found["item_id"].equals(pictured["item_id"])
    assert found["category"].null_count() == 0
    pl.DataFrame({"image": [found["image"][0], "gone.png"]}).write_csv(tmp_path / "photos.csv")
    shown = say(*command, "--photos", tmp_path / "photos.csv")
    assert "pictures: 1 of 2 rows: image must be an existing file" in shown
    assert "1 of 2 pictures annotated in" in shown


def test_probabilities_are_calibrated_on_the_val_photos_of_the_configuration(
    tiny_bundle: Path, tiny_shop: Shop, tmp_path: Path, ask: Ask, refusal: Say
) -> None:
    command = ("annotate", tiny_bundle, "--images-root", tiny_shop.images, "--min-probability", 0)
    config = tiny_shop.folder / "tiny.toml"
    plain, calibrated = tmp_path / "plain.parquet", tmp_path / "calibrated.parquet"
    ask(*command, "--items", tiny_shop.items, "--out", plain)
    ask(*command, "--items", tiny_shop.items, "--out", calibrated, "--calibrate", config)
    before, after = pl.read_parquet(plain), pl.read_parquet(calibrated)
    values = pl.col("^attribute_.*$").exclude("^.*_probability$")
    # A temperature changes probabilities but not which class is the most probable.
    assert after.select(values).equals(before.select(values))
    assert not after.equals(before)
    without = tmp_path / "without.toml"
    without.write_text(f'name = "x"\n[data]\nitems = "{tiny_shop.items}"\n')
    message = refusal(*command, "--items", tiny_shop.items, "--out", plain, "--calibrate", without)
    assert message == f"{without} must have photos whose split is val, got none"


def test_a_category_is_added_from_pictures_and_every_answer_knows_it(
    tiny_bundle: Path, tiny_shop: Shop, tmp_path: Path, ask: Ask, say: Say, refusal: Say
) -> None:
    shutil.copytree(Bundle(tiny_bundle).path, tmp_path / Bundle(tiny_bundle).version)
    pictures = [tmp_path / f"{n}.png" for n in range(4)]
    for n, picture in enumerate(pictures):
        smooth_picture(n).save(picture)
    command = ("category", "add", tmp_path, "Odd > Noise", *pictures)
    answer = ask(*command)
    assert answer["category"] == ["Odd", "Noise"]
    assert answer["pictures"] == 4
    new = Bundle(tmp_path)
    assert answer["bundle"] == str(new.path)
    assert new.reading.temperatures, "the tiny shop has photos of val"
    recommender = Recommender(new)
    seen = recommender.annotate(pictures[0])
    answered = ProductIdentifier(recommender).identify(pictures[0])
    assert answered.annotation == seen, "Identify says the same"
    wanted = annotate(new, pictures[:1])
    assert seen.category == tuple(wanted["category"][0] or ())
    assert seen.category_probability == wanted["category_probability"][0]
    assert "name must be a new category, got 'Odd > Noise'" in refusal(*command)
    shown = say("category", "add", tmp_path, "Odd > Grain", pictures[0])
    assert "Odd > Grain: added from 1 pictures" in shown
    missing = refusal("category", "add", tmp_path, "Odd > Dust", tmp_path / "gone.png")
    assert "gone.png" in missing
    config = tiny_shop.folder / "tiny.toml"
    report = ("vision", "report", tmp_path, config, "--out", tmp_path / "vision")
    assert "category_2" in ask(*report, "--no-robustness")["targets"]


def test_variants_are_refused_under_the_name_of_another_format(
    tmp_path: Path, refusal: Say
) -> None:
    message = refusal("variants", "no-bundle", "--out", tmp_path / "variants.csv")
    assert message == "out must end in .parquet, got 'variants.csv'"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_a_card_that_is_not_there_is_refused(
    tiny_bundle: Path, tiny_shop: Shop, tmp_path: Path, refusal: Say
) -> None:
    command = ("annotate", tiny_bundle, "--items", tiny_shop.items, "--out", tmp_path / "a.parquet")
    message = refusal(*command, "--images-root", tiny_shop.images, "--device", "cuda")
    assert message.startswith(
        "device must be auto, cpu or another that this machine has, got 'cuda'"
    )


def test_variants_are_those_that_the_library_finds(
    tiny_bundle: Path, tmp_path: Path, ask: Ask, say: Say
) -> None:
    out = tmp_path / "new" / "variants.parquet"
    answer = ask("variants", tiny_bundle, "--out", out)
    bundle, found = Bundle(tiny_bundle), pl.read_parquet(out)
    assert found.equals(find_variants(bundle.items, bundle.item_embeddings))
    assert answer == {
        "groups": found["group"].n_unique(),
        "items": len(found),
        "file": str(out),
    }
    assert f"{len(found)} items are variants of" in say("variants", tiny_bundle, "--out", out)
