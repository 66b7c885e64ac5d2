import json
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from recsys.schema import ItemSchema
from serving.state.records import (
    ItemRecord,
    Written,
    build_table,
    decode_record,
    encode_record,
    fields_of,
)
from serving.state.unreadable import UnreadableError

ROW: dict[str, Any] = {
    "item_id": "mug",
    "title": "Red mug",
    "description": None,
    "image": "mug.png",
    "category": ["home", "mugs"],
    "price": 1.5,
    "attributes": [{"key": "size", "value": "L"}, {"key": "colour", "value": "red"}],
    "available": True,
    "created_at": datetime(2025, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
}
WRITTEN = Written(at_us=5, version="9f2c", changed_us={"price": 3, "picture": 5})
# The keys that the release before this one accepts.
EARLIER_KEYS = {"item_id", "deleted", "picture", "picture_digest", "fields"}


@pytest.mark.parametrize(
    "record",
    [
        ItemRecord("mug", False, "stored", "digest", fields_of(ROW), WRITTEN),
        ItemRecord("mug", deleted=True, written=Written(5, "9f2c")),
        ItemRecord("mug", fields=fields_of(ROW)),
        ItemRecord("mug", deleted=True),
    ],
)
def test_a_record_is_read_as_it_was_written(record: ItemRecord) -> None:
    assert decode_record(encode_record(record).encode()) == record


def test_an_earlier_release_reads_a_record_and_ignores_its_times() -> None:
    record = ItemRecord("mug", False, "bundle", None, fields_of(ROW), WRITTEN)

    values = json.loads(encode_record(record))

    assert set(values) == EARLIER_KEYS
    as_before = ItemRecord(**values)  # its way of reading: the times stay among the fields
    schema = ItemSchema.create_empty().schema
    before, now = (build_table([one], schema) for one in (as_before, record))
    assert before.equals(now)
    assert set(json.loads(encode_record(ItemRecord("mug", True, written=WRITTEN)))) == EARLIER_KEYS


def test_a_record_of_an_earlier_release_has_no_time() -> None:
    stored = {"item_id": "mug", "deleted": False, "picture": "none", "picture_digest": None}

    record = decode_record(json.dumps(stored | {"fields": {"title": "Mug"}}).encode())

    assert record == ItemRecord("mug", fields={"title": "Mug"})
    assert record.dated(7).written == Written(7, "", {"title": 7, "picture": 7})
    assert decode_record(json.dumps(stored | {"fields": None}).encode()) == ItemRecord("mug")


def rewritten(**to: Any) -> bytes:
    """Return the text of a record with other values in place of its own."""
    record = ItemRecord("mug", False, "stored", "digest", fields_of(ROW), WRITTEN)
    return json.dumps(json.loads(encode_record(record)) | to).encode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "the text: Invalid JSON"),
        (b'{"item_id": "m\xff"}', "the text: Invalid JSON"),
        (rewritten()[:-9], "the text: Invalid JSON"),
        (b"[" * 9_999, "the text: Invalid JSON"),
        (b"[]", "the text: Input should be an object"),
        (b"{}", "item_id: Field required"),
        (rewritten(item_id=5), "item_id: Input should be a valid string"),
        (rewritten(picture="lost"), "picture: Input should be 'stored', 'bundle' or 'none'"),
        (rewritten(colour="red"), "colour: Extra inputs are not permitted"),
        (rewritten(fields=["title"]), "fields: Input should be an object"),
        (rewritten(fields={"price": "much"}), "fields.price: Input should be a valid number"),
        (rewritten(fields={"price": float("nan")}), "fields.price: Input should be a finite"),
        (
            rewritten(fields={"created_at": 5}),
            "fields.created_at: Input should be a valid datetime",
        ),
        (rewritten(fields={"attributes": [{"key": "a"}]}), "fields.attributes.0.value: Field req"),
        (rewritten(fields={"written": {}}), "fields.written.at_us: Field required"),
        (
            rewritten(fields={"written": {"at_us": 2**63}}),
            "fields.written.at_us: Input should be less",
        ),
        (
            rewritten(fields={"written": {"at_us": 1, "changed_us": {"price": 1}}}),
            "fields: price has the time of a change and no value",
        ),
    ],
)
def test_what_is_not_a_record_is_refused_with_the_first_reason(text: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        decode_record(text)


def test_fields_that_a_later_release_adds_are_no_obstacle() -> None:
    fields = fields_of(ROW) | {
        "brand": "Vitrine",
        "written": {"at_us": 1, "changed_us": {"brand": 1}},
    }

    record = decode_record(rewritten(fields=fields))

    assert (record.fields or {})["title"] == "Red mug"


def test_the_fields_of_equal_items_are_equal() -> None:
    other = ROW | {"attributes": ROW["attributes"][::-1]}
    from_table = pl.DataFrame([ROW], schema=ItemSchema.create_empty().schema).row(0, named=True)

    assert fields_of(ROW) == fields_of(other) == fields_of(from_table)
