"""The generated shop as a user finds it: files, tables and pictures."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from recsys.data.synthetic import Shop, generate_shop
from recsys.data.synthetic.camera import PICTURE_PX
from recsys.data.synthetic.vocabulary import (
    BRANDS,
    COLOURS,
    LEAVES,
    MATERIALS,
    PATTERNS,
    THEMES,
)
from recsys.schema import EventSchema, ItemSchema, PhotoSchema

END = datetime(2026, 1, 1, tzinfo=UTC)
TABLES = ("items", "events", "photos", "unknown")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("generated") / "shop"
    return generate_shop(folder, end=END, n_items=200, n_users=300, months=12, seed=3)


@pytest.fixture(scope="module")
def items(shop: Shop) -> pl.DataFrame:
    return pl.read_parquet(shop.items)


@pytest.fixture(scope="module")
def events(shop: Shop) -> pl.DataFrame:
    return pl.read_parquet(shop.events)


def test_tables_are_valid_in_the_canonical_columns_without_a_cast(
    shop: Shop, items: pl.DataFrame, events: pl.DataFrame
) -> None:
    ItemSchema.validate(items)
    EventSchema.validate(events)
    PhotoSchema.validate(pl.read_parquet(shop.photos))
    PhotoSchema.validate(pl.read_parquet(shop.unknown))


def test_the_shop_counts_its_rows_as_they_are(shop: Shop) -> None:
    heights = [pl.read_parquet(getattr(shop, name)).height for name in TABLES]
    assert heights == [shop.n_items, shop.n_events, shop.n_photos, shop.n_unknown]


def test_split_is_the_first_instant_of_the_last_month(shop: Shop, events: pl.DataFrame) -> None:
    assert (shop.split, shop.end) == (datetime(2025, 12, 1, tzinfo=UTC), END)
    assert events["timestamp"].min() >= datetime(2025, 1, 1, tzinfo=UTC)
    assert events["timestamp"].max() < END


def test_no_event_comes_before_its_item(items: pl.DataFrame, events: pl.DataFrame) -> None:
    joined = events.join(items.select("item_id", "created_at"), on="item_id", how="left")
    assert joined["created_at"].null_count() == 0
    assert joined.filter(pl.col("timestamp") < pl.col("created_at")).is_empty()


def test_a_collection_arrives_at_the_split_and_sells_in_the_test_month(
    shop: Shop, items: pl.DataFrame, events: pl.DataFrame
) -> None:
    cold = items.filter(pl.col("created_at") == shop.split).select("item_id")
    assert 0.1 * shop.n_items <= cold.height <= 0.35 * shop.n_items  # fewer months, larger drops
    cold_events = events.join(cold, on="item_id", how="semi")
    assert cold_events["timestamp"].min() >= shop.split
    assert cold_events.filter(pl.col("kind") == "purchase")["item_id"].n_unique() > cold.height / 3


def test_items_arrive_on_the_first_of_a_month_at_midnight(shop: Shop, items: pl.DataFrame) -> None:
    opening = datetime(2025, 1, 1, tzinfo=UTC)
    arrivals = items.filter(pl.col("created_at") >= opening)["created_at"]
    assert all(
        at == at.replace(day=1, hour=0, minute=0, second=0, microsecond=0) for at in arrivals
    )
    assert items.filter(pl.col("created_at") < opening).height == round(0.45 * shop.n_items)


def test_every_purchase_follows_a_cart_and_every_cart_a_view(events: pl.DataFrame) -> None:
    first = events.group_by("user_id", "item_id", "kind").agg(pl.col("timestamp").min())
    steps = first.pivot("kind", index=["user_id", "item_id"], values="timestamp")
    bought = steps.filter(pl.col("purchase").is_not_null())
    carted = steps.filter(pl.col("cart").is_not_null())
    assert (bought["purchase"] > bought["cart"]).all()
    assert (carted["cart"] > carted["view"]).all()


def test_the_funnel_narrows_and_few_things_are_bought_twice(events: pl.DataFrame) -> None:
    counts = dict(events["kind"].value_counts().iter_rows())
    assert counts["view"] > 2 * counts["cart"] > 2 * counts["purchase"] > 0
    bought = events.filter(pl.col("kind") == "purchase").select("user_id", "item_id")
    assert bought.n_unique() > 0.9 * bought.height


def test_only_purchases_have_a_value_and_it_is_price_times_quantity(
    items: pl.DataFrame, events: pl.DataFrame
) -> None:
    joined = events.join(items.select("item_id", "price"), on="item_id")
    bought = joined.filter(pl.col("kind") == "purchase")
    off = (bought["value"] - bought["price"] * bought["quantity"]).abs().max()
    assert off == pytest.approx(0.0, abs=0.006)
    assert joined.filter(pl.col("kind") != "purchase")["value"].is_null().all()


def test_some_products_and_some_shoppers_are_far_more_active_than_most(
    events: pl.DataFrame,
) -> None:
    for column in ("item_id", "user_id"):
        counts = events[column].value_counts()["count"].sort(descending=True)
        top_tenth = counts.head(len(counts) // 10).sum() / counts.sum()
        assert 0.2 < top_tenth < 0.6, column


def test_titles_name_brand_theme_and_product_but_seldom_the_look(items: pl.DataFrame) -> None:
    titles = items["title"].drop_nulls().str.to_lowercase()

    def share_with(words: list[str]) -> float:
        return titles.str.contains_any([word.lower() for word in words]).mean()

    assert share_with(list(BRANDS)) > 0.95
    assert share_with([word for theme in THEMES.values() for word in theme.words]) > 0.95
    assert share_with([noun for leaf in LEAVES.values() for noun in leaf.nouns]) > 0.95
    assert share_with([f" {colour} " for colour in COLOURS]) < 0.15
    assert share_with([f" {material} " for material in MATERIALS]) < 0.15


def test_attributes_tell_the_look_of_most_items(items: pl.DataFrame) -> None:
    noted = items.explode("attributes").unnest("attributes")
    for key, values in (("colour", COLOURS), ("material", MATERIALS), ("pattern", PATTERNS)):
        found = noted.filter(pl.col("key") == key)["value"]
        assert set(found) <= set(values)
        assert 0.7 < len(found) / items.height < 0.95
    accented = set(noted.filter(pl.col("key") == "accent")["item_id"])
    plain = set(noted.filter(pl.col("value") == "plain")["item_id"])
    assert len(plain) > 5
    assert not accented & plain


def test_the_images_root_has_exactly_the_pictures_of_the_tables(
    shop: Shop, items: pl.DataFrame
) -> None:
    named = {
        path
        for name in ("items", "photos", "unknown")
        for path in pl.read_parquet(getattr(shop, name))["image"].drop_nulls()
    }
    found = {str(path.relative_to(shop.images)) for path in shop.images.rglob("*.*")}
    assert found == named
    assert 0.9 * shop.n_items < items["image"].count() < shop.n_items
    with Image.open(shop.images / min(named)) as picture:
        assert (picture.size, picture.mode) == ((PICTURE_PX, PICTURE_PX), "RGB")


def test_photos_show_three_quarters_of_the_products_in_three_splits(
    shop: Shop, items: pl.DataFrame
) -> None:
    photos = pl.read_parquet(shop.photos)
    assert photos["item_id"].n_unique() == 0.75 * shop.n_items
    counts = dict(photos["split"].value_counts().iter_rows())
    assert counts == {"train": 150, "val": 75, "test": 75}
    joined = photos.join(items, on="item_id", how="left")
    assert joined["category"].equals(joined["category_right"], check_names=False)


def test_unknown_photos_name_a_category_of_the_shop_but_no_item(
    shop: Shop, items: pl.DataFrame
) -> None:
    unknown = pl.read_parquet(shop.unknown)
    assert unknown["item_id"].null_count() == unknown.height == 25
    assert set(unknown["category"].list.last()) <= set(items["category"].list.last())
    assert set(unknown["split"]) == {"val", "test"}


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_shop(tmp_path: Path) -> None:
    def contents(name: str, seed: int) -> dict[str, bytes]:
        folder = tmp_path / name
        generate_shop(folder, end=END, n_items=50, n_users=20, months=2, seed=seed)
        return _contents(folder)

    first, again, other = contents("a", 1), contents("b", 1), contents("c", 2)
    assert first == again
    assert all(first[f"{name}.parquet"] != other[f"{name}.parquet"] for name in TABLES)


def test_progress_is_reported_to_the_end_of_each_stage(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    generate_shop(
        tmp_path / "shop",
        end=END,
        n_items=50,
        n_users=1,
        months=2,
        progress=lambda stage, done, total: steps.append((stage, done, total)),
    )
    assert [stage for stage, done, total in steps if done == total] == ["events", "pictures"]
    pictures = [done for stage, done, _ in steps if stage == "pictures"]
    assert pictures == list(range(len(pictures)))


def test_an_interrupted_generation_leaves_no_file(tmp_path: Path) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("pictures", 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_shop(
            tmp_path / "shop", end=END, n_items=50, n_users=5, months=2, progress=interrupt
        )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match=r"folder must be missing or empty, got .*choose another"):
        generate_shop(tmp_path, end=END)
    assert (tmp_path / "mine.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_items": 49}, "n_items must be at least 50, got 49"),
        ({"n_users": 0}, "n_users must be at least 1, got 0"),
        ({"months": 1}, "months must be at least 2, got 1"),
        ({"end": END + timedelta(days=1)}, "end must be the first of a month, 00:00 UTC, got 2026"),
        ({"end": END.replace(tzinfo=None)}, "end must be the first of a month, 00:00 UTC, got"),
    ],
)
def test_an_argument_out_of_range_is_named(
    tmp_path: Path, wrong: dict[str, object], message: str
) -> None:
    arguments: dict[str, object] = {"end": END, **wrong}
    with pytest.raises(ValueError, match=message):
        generate_shop(tmp_path / "shop", **arguments)
    assert list(tmp_path.iterdir()) == []
