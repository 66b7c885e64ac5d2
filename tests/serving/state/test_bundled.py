"""What of a live record is newer than the bundle's table."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from recsys.schema import ItemSchema
from serving.state.bundled import BundledItems
from serving.state.records import PICTURE, ItemRecord, Written, fields_of

AS_OF = 100
BEFORE, AFTER = AS_OF, AS_OF + 1  # a change at the moment of the export is in it
ROW: dict[str, Any] = {
    "item_id": "mug",
    "title": "Mug",
    "description": None,
    "image": "mug.png",
    "category": ["home"],
    "price": 1.0,
    "attributes": [],
    "available": True,
    "created_at": datetime(2025, 1, 1, tzinfo=UTC),
}


def bundled(as_of_us: int | None = AS_OF) -> BundledItems:
    items = ItemSchema.validate(pl.DataFrame([ROW]), cast=True)
    return BundledItems(items, version="9f2c", as_of_us=as_of_us)


def record_of(at_us: int, item_id: str = "mug", **changed: Any) -> ItemRecord:
    """Return a record with changed fields, all of one time."""
    times = dict.fromkeys(changed, at_us)
    picture = changed.pop(PICTURE, "bundle")
    return ItemRecord(
        item_id,
        picture=picture,
        picture_digest="digest" if picture == "stored" else None,
        fields=fields_of(ROW | changed),
        written=Written(at_us, "9f2c", times),
    )


def dated(record: ItemRecord, **times_us: int) -> ItemRecord:
    assert record.written is not None
    return replace(record, written=replace(record.written, changed_us=times_us))


def test_of_each_field_the_newer_value_is_served() -> None:
    record = record_of(AFTER, title="Cup", price=2.0, available=False)
    record = dated(record, title=BEFORE, price=AFTER)

    judged = bundled().judge(record)

    expected = fields_of(ROW | {"price": 2.0})  # `available` was sent along, and not changed
    assert judged.served == ItemRecord("mug", picture="bundle", fields=expected)
    assert (judged.counting, judged.counts) == ({"price": AFTER}, True)


def test_a_record_older_than_the_table_leaves_the_item_of_the_table() -> None:
    judged = bundled().judge(record_of(BEFORE, title="Cup", price=2.0, picture="stored"))

    assert judged.served == bundled().record("mug")
    assert (judged.counting, judged.counts) == ({}, False)


@pytest.mark.parametrize(("at_us", "is_served"), [(BEFORE, True), (AFTER, False)])
def test_a_deleted_item_is_back_once_a_newer_table_has_it(at_us: int, is_served: bool) -> None:
    judged = bundled().judge(ItemRecord("mug", deleted=True, written=Written(at_us)))

    assert judged.served.deleted is not is_served
    assert judged.counts is not is_served
    if is_served:
        assert judged.served == bundled().record("mug")


@pytest.mark.parametrize(("at_us", "is_served"), [(BEFORE, False), (AFTER, True)])
def test_an_item_that_a_newer_table_lacks_is_discontinued(at_us: int, is_served: bool) -> None:
    record = dated(record_of(at_us, "lamp", title="Lamp"), title=BEFORE)

    judged = bundled().judge(record)

    assert judged.served.deleted is not is_served
    assert judged.counts is is_served
    if is_served:  # whole, for no table has its other values
        assert judged.served == record


def test_a_deleted_item_that_the_table_lacks_stays_deleted() -> None:
    for at_us in (BEFORE, AFTER):
        record = ItemRecord("lamp", deleted=True, written=Written(at_us))
        assert bundled().judge(record).served.deleted


@pytest.mark.parametrize("picture", ["stored", "none"])
def test_a_picture_is_a_field_too(picture: str) -> None:
    newer = bundled().judge(record_of(AFTER, picture=picture))
    older = bundled().judge(dated(record_of(AFTER, picture=picture, price=2.0), price=AFTER))

    digest = "digest" if picture == "stored" else None
    assert (newer.served.picture, newer.served.picture_digest) == (picture, digest)
    assert (older.served.picture, older.served.picture_digest) == ("bundle", None)


def test_newer_words_keep_an_older_stored_picture_for_the_bundle_has_none_to_embed() -> None:
    record = dated(record_of(AFTER, title="Cup", picture="stored"), title=AFTER, picture=BEFORE)

    judged = bundled().judge(record)

    assert (judged.served.picture, judged.served.picture_digest) == ("stored", "digest")
    assert judged.counting == {"title": AFTER}


@pytest.mark.parametrize("record", [record_of(1, title="Cup"), ItemRecord("mug", deleted=True)])
def test_every_record_is_newer_than_a_bundle_of_an_earlier_release(record: ItemRecord) -> None:
    judged = bundled(as_of_us=None).judge(record)

    assert (judged.served, judged.counts) == (record, True)


def test_a_record_of_an_earlier_release_is_older_than_any_table_unless_its_time_is_known() -> None:
    record = replace(record_of(1, title="Cup"), written=None)

    assert bundled().judge(record).served == bundled().record("mug")
    assert bundled().judge(record.dated(AFTER)).served.fields == record.fields


@pytest.mark.parametrize("as_of_us", [AS_OF, None])
def test_a_record_that_cannot_be_read_changes_nothing(as_of_us: int | None) -> None:
    items = bundled(as_of_us)

    for item_id in ("mug", "lost"):
        judged = items.judge(ItemRecord(item_id, is_readable=False))
        assert judged == (items.stand_in(item_id), {}, False)


def test_a_change_made_now_is_newer_than_the_table_though_the_clock_of_redis_is_behind() -> None:
    assert bundled().write_time_us(AS_OF + 50) == AS_OF + 50
    assert bundled().write_time_us(AS_OF - 50) == AFTER
    assert bundled(as_of_us=None).write_time_us(7) == 7
