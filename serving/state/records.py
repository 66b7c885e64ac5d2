"""An item as Redis stores it, and the same item as a row of a table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import polars as pl
from polars.datatypes import DataType, DataTypeClass


@dataclass(frozen=True)
class ItemRecord:
    """An item as it is stored; a deleted one keeps its id only.

    Args:
        item_id: The caller's id.
        deleted: Whether the item is left out of all answers.
        picture: Where the item's picture is: "stored" beside the record, "bundle" (the one of the
            training tables), or "none".
        picture_digest: Name of the stored picture, from ``picture_digest``.
        fields: Other columns of ``ItemSchema``, as JSON can hold them.
    """

    item_id: str
    deleted: bool = False
    picture: Literal["stored", "bundle", "none"] = "none"
    picture_digest: str | None = None
    fields: dict[str, Any] | None = None

    def without_picture(self) -> "ItemRecord":
        """Return the same item without a picture."""
        return ItemRecord(self.item_id, fields=self.fields)


def encode_record(record: ItemRecord) -> str:
    """Return a record as text."""
    return json.dumps(asdict(record), ensure_ascii=False)


def decode_record(stored: bytes) -> ItemRecord:
    """Return a record from its text."""
    return ItemRecord(**json.loads(stored))


def fields_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of ``ItemSchema`` as the ``fields`` of a record."""
    created_at: datetime | None = row["created_at"]
    fields = {name: value for name, value in row.items() if name != "item_id"}
    return fields | {"created_at": created_at.isoformat() if created_at else None}


def build_table(
    records: Sequence[ItemRecord], schema: Mapping[str, DataType | DataTypeClass]
) -> pl.DataFrame:
    """Return records as a table, one row each.

    Args:
        records: Records of items that are not deleted.
        schema: Columns and types of the table.
    """
    return pl.DataFrame([_row_of(record) for record in records], schema=schema)


def _row_of(record: ItemRecord) -> dict[str, Any]:
    fields = record.fields or {}
    created_at = fields.get("created_at")
    moment = datetime.fromisoformat(created_at).astimezone(UTC) if created_at else None
    return {"item_id": record.item_id, **fields, "created_at": moment}
