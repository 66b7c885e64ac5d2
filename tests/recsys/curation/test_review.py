import unicodedata
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from recsys.answers import Identification, Result, Verdict
from recsys.bundle import Bundle
from recsys.curation.review import (
    N_CANDIDATES,
    ask,
    find_pool,
    learn,
    most_useful,
    read_labels,
    refuse_labelled,
    write_review,
    write_table,
)
from recsys.data.loading import load_photos
from recsys.errors import DataError, SchemaError
from recsys.identifier import ProductIdentifier
from recsys.recommender import Recommender

ITEMS = {"red-apple", "green-apple", "milk"}


def draw(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A photos table beside its pictures: one photo has an item, two have none."""
    for name in ("old.png", "new/1.png", "new/2.png"):
        draw(tmp_path / name)
    table = pl.DataFrame(
        {
            "image": ["old.png", "new/1.png", "new/2.png"],
            "item_id": ["milk", None, None],
            "split": ["train", "test", None],
            "shop": ["A", "B", "B"],
        }
    )
    table.write_parquet(tmp_path / "photos.parquet")
    return tmp_path


def test_the_pool_of_a_folder_is_its_files_below_the_root(shop: Path) -> None:
    pool = find_pool(shop / "new", images_root=shop)
    assert pool.names == ["new/1.png", "new/2.png"]
    assert find_pool(shop / "new").names == ["1.png", "2.png"]
    with pytest.raises(DataError, match="must be inside images_root"):
        find_pool(shop, images_root=shop / "new")


def test_the_pool_of_a_table_is_its_photos_without_an_item(shop: Path) -> None:
    pool = find_pool(shop / "photos.parquet")
    assert pool.names == ["new/1.png", "new/2.png"]
    assert pool.images_root == shop


def test_a_pool_without_photos_to_label_is_refused(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="one or more without an item"):
        find_pool(tmp_path / "empty")
    with pytest.raises(DataError, match="nothing matches"):
        find_pool(tmp_path / "nowhere.csv")
    pl.DataFrame({"picture": ["old.png"]}).write_parquet(shop / "odd.parquet")
    with pytest.raises(SchemaError, match="image"):
        find_pool(shop / "odd.parquet")


def test_uncertain_photos_are_listed_with_the_smallest_margin_first() -> None:
    def answer(verdict: Verdict, probability: float, *scores: float) -> Identification:
        results = tuple(Result(f"item-{n}", score, "photo") for n, score in enumerate(scores))
        return Identification(
            known=probability >= 0.5,
            probability=probability,
            candidates=results,
            verdict=verdict,
            bundle_version="",
        )

    answers = [
        answer("product", 0.98, 0.97, 0.01, 0.0),
        answer("unsure", 0.95, 0.60, 0.30, 0.05),  # margin 0.3
        answer("unknown", 0.49, 0.48, 0.01),  # 0.51 for "not in the catalogue", less 0.48
        answer("unknown", 0.20, 0.10, 0.05, 0.05),  # 0.8 - 0.1
    ]
    table = most_useful(["0.png", "1.png", "2.png", "3.png"], answers)
    assert table["image"].to_list() == ["2.png", "1.png", "3.png"]
    assert table["margin"].to_list() == pytest.approx([0.03, 0.3, 0.7])
    assert table["verdict"].to_list() == ["unknown", "unsure", "unknown"]
    assert table["candidate_1"].to_list() == ["item-0"] * 3
    assert table["candidate_2_probability"].to_list() == pytest.approx([0.01, 0.3, 0.05])
    assert table["candidate_3"].to_list() == [None, "item-2", "item-2"]
    assert table["item_id"].null_count() == 3
    assert most_useful([], []).columns == table.columns


def test_unreadable_files_of_a_folder_are_left_out(tiny_bundle: Path, tmp_path: Path) -> None:
    for seed in range(3):
        draw(tmp_path / f"{seed}.png", seed)
    (tmp_path / "notes.txt").write_text("no picture")
    identifier = ProductIdentifier(Recommender(Bundle(tiny_bundle)))
    table = ask(identifier, find_pool(tmp_path))
    answers = identifier.identify_many([tmp_path / name for name in table["image"]], N_CANDIDATES)
    assert sorted(table["image"]) == ["0.png", "1.png", "2.png"]
    assert table["probability"].to_list() == pytest.approx(
        [one.probability for one in answers], abs=1e-5
    )


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_labels_of_a_review_are_added_to_the_photos_table(shop: Path, suffix: str) -> None:
    draw(shop / "later.png")
    review = pl.DataFrame(
        {
            "image": ["new/1.png", "later.png", "new/2.png"],
            "item_id": ["green-apple", " milk ", None],
            "margin": [0.1, 0.2, 0.3],
        }
    )
    write_review(review, shop / f"review.{suffix}")
    added = learn(shop / f"review.{suffix}", shop / "photos.parquet", ITEMS)
    assert added == (1, 1, 1)
    found = pl.read_parquet(shop / "photos.parquet")
    assert found.rows() == [
        ("old.png", "milk", "train", "A"),
        ("new/1.png", "green-apple", "test", "B"),
        ("new/2.png", None, None, "B"),
        ("later.png", "milk", None, None),
    ]
    again = learn(shop / f"review.{suffix}", shop / "photos.parquet", ITEMS)
    assert again == (0, 0, 1)
    assert pl.read_parquet(shop / "photos.parquet").equals(found)


def test_a_missing_photos_table_is_created_and_can_be_trained_on(tmp_path: Path) -> None:
    draw(tmp_path / "1.png")
    (tmp_path / "review.csv").write_text("image,item_id\n1.png,milk\n")
    assert learn(tmp_path / "review.csv", tmp_path / "photos.csv", ITEMS) == (1, 0, 0)
    loaded = load_photos(
        tmp_path / "photos.csv", pl.Series("item_id", sorted(ITEMS)), images_root=tmp_path
    )
    assert loaded.frame["item_id"].to_list() == ["milk"]


def test_every_invalid_label_is_named_and_nothing_is_written(shop: Path) -> None:
    before = (shop / "photos.parquet").read_bytes()
    (shop / "review.csv").write_text(
        "image,item_id\nnew/1.png,mlik\nnew/2.png,milk\nnew/2.png,red-apple\n../out.png,milk\n"
    )
    with pytest.raises(DataError) as error:
        learn(shop / "review.csv", shop / "photos.parquet", ITEMS)
    message = str(error.value)
    assert "has 3 problem(s)" in message
    assert "item_id of 'new/1.png' must be in the catalogue, got 'mlik'; did you mean 'milk'?" in (
        message
    )
    assert "image 'new/2.png' must have one item_id, got ['milk', 'red-apple']" in message
    assert "image '../out.png' breaks the rule image|inside_root" in message
    assert (shop / "photos.parquet").read_bytes() == before


def test_a_table_without_the_columns_of_a_review_is_refused(shop: Path) -> None:
    for text, reason in (
        ("image,product\n1.png,milk\n", "must have the columns image and item_id"),
        ("image,item_id\n,milk\n", "must name an image in every row"),
        ("", "the file is empty"),
    ):
        (shop / "review.csv").write_text(text)
        with pytest.raises(DataError, match=reason):
            read_labels(shop / "review.csv")
    with pytest.raises(ValueError, match=r"out must end in .parquet or .csv, got 'review.txt'"):
        write_table(pl.DataFrame(), shop / "review.txt")


def test_a_photo_that_is_spelled_in_two_ways_stays_one_row(shop: Path) -> None:
    draw(shop / unicodedata.normalize("NFD", "fot\u00f6.png"))
    there = pl.DataFrame({"image": ["fot\u00f6.png", "./old.png"], "split": ["val", "train"]})
    there.write_parquet(shop / "photos.parquet")
    labels = pl.DataFrame({"image": ["fot\u00f6.png", "old.png"], "item_id": ["milk", "milk"]})
    labels.write_csv(shop / "review.csv")

    added = learn(shop / "review.csv", shop / "photos.parquet", ITEMS)

    assert (added.n_new, added.n_labelled) == (0, 2)
    table = pl.read_parquet(shop / "photos.parquet")
    assert table["image"].to_list() == ["fot\u00f6.png", "./old.png"]
    assert table["item_id"].to_list() == ["milk", "milk"]


def test_the_pool_of_a_table_has_the_names_of_the_files(shop: Path) -> None:
    name = unicodedata.normalize("NFD", "fot\u00f6.png")
    draw(shop / name)
    pl.DataFrame({"image": ["fot\u00f6.png"]}).write_parquet(shop / "photos.parquet")

    assert find_pool(shop / "photos.parquet").names == [name]


def test_labels_are_one_table_whose_blank_last_row_is_no_photo(shop: Path) -> None:
    for n in "12":
        (shop / f"review-{n}.csv").write_text(f"image,item_id\nnew/{n}.png,milk\n,\n")

    assert len(read_labels(shop / "review-1.csv")) == 1
    with pytest.raises(DataError, match=r"must be one table, .* matches 2"):
        read_labels(shop / "review-*.csv")


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_no_name_is_a_formula_for_the_person_and_each_is_read_back(
    tmp_path: Path, suffix: str
) -> None:
    table = pl.DataFrame({"image": ["=1+1.png", "'-x.png"], "item_id": ["@milk", "-5"]})
    path = tmp_path / f"review.{suffix}"
    write_review(table, path)
    if suffix == "csv":
        assert path.read_text().splitlines()[1:] == ["'=1+1.png,'@milk", "''-x.png,'-5"]
    assert read_labels(path).equals(table)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_review_with_labels_is_not_replaced(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"review{suffix}"
    refuse_labelled(out)
    for labels, is_labelled in (([None, ""], False), ([None, "milk"], True)):
        table = pl.DataFrame({"image": ["a.png", "b.png"], "item_id": labels})
        write_table(table, out)
        if is_labelled:
            with pytest.raises(ValueError, match=r"has 1 labels; run `recsys review learn`"):
                refuse_labelled(out)
        else:
            refuse_labelled(out)
    write_table(pl.DataFrame({"another": [1]}), out)
    refuse_labelled(out)


def test_a_file_whose_name_no_table_can_hold_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.png", "\udcff.png"):  # the byte 0xff, as Python reads it
        (tmp_path / name).write_bytes(b"")
    assert find_pool(tmp_path).names == ["a.png"]
    assert caplog.messages == ["'\\udcff.png' is left out: its name is not UTF-8; rename it"]
