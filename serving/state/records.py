"""An item as Redis stores it, and the same item as a row of a table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import polars as pl
from polars.datatypes import DataType, DataTypeClass
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from recsys.data.timestamps import to_us
from serving.state.unreadable import UnreadableError

PICTURE = "picture"  # the picture among the fields that change
_WRITTEN = "written"

Picture = Literal["stored", "bundle", "none"]
_Time = Annotated[int, Field(ge=0, le=to_us("time", datetime.max.replace(tzinfo=UTC)))]


class _Checked(BaseModel):
    """What a record in Redis must be; fields that a later release added are not looked at."""

    model_config = ConfigDict(strict=True)


class _StoredPair(_Checked):
    key: str
    value: str


class _StoredTimes(_Checked):
    model_config = ConfigDict(strict=True, extra="forbid")

    at_us: _Time
    version: str = ""
    changed_us: dict[str, _Time] = {}


class _StoredFields(_Checked):
    title: str | None = None
    description: str | None = None
    image: str | None = None
    category: list[str] = []
    price: FiniteFloat | None = None
    attributes: list[_StoredPair] = []
    available: bool = True
    created_at: AwareDatetime | None = None
    written: _StoredTimes | None = None


class _Stored(_Checked):
    model_config = ConfigDict(strict=True, extra="forbid")

    item_id: str = Field(min_length=1)
    deleted: bool = False
    picture: Picture = "none"
    picture_digest: str | None = None
    fields: _StoredFields | None = None


@dataclass(frozen=True)
class Written:
    """When a record was written, and which of its values are changes.

    Args:
        at_us: Time of the call that wrote it, microseconds UTC by the clock of Redis.
        version: Version of the bundle that the writing replica served.
        changed_us: Time of each field that a call changed; PICTURE is a field, too. The other
            values are those of the bundle's table, sent along.
    """

    at_us: int
    version: str = ""
    changed_us: Mapping[str, int] = field(default_factory=dict)


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
        written: When it was written; None for a record of an earlier release.
        is_readable: Whether what is stored is a record; else this stands for it, with the id alone.
    """

    item_id: str
    deleted: bool = False
    picture: Picture = "none"
    picture_digest: str | None = None
    fields: dict[str, Any] | None = None
    written: Written | None = None
    is_readable: bool = True

    def without_picture(self) -> "ItemRecord":
        """Return the same item without a picture."""
        return ItemRecord(self.item_id, fields=self.fields)

    def dated(self, at_us: int) -> "ItemRecord":
        """Return a record of an earlier release as if that moment had changed all of it."""
        changed = dict.fromkeys((*(self.fields or ()), PICTURE), at_us)
        return replace(self, written=Written(at_us, changed_us=changed))


def encode_record(record: ItemRecord) -> str:
    """Return a record as text."""
    values = {name: getattr(record, name) for name in _Stored.model_fields}
    if record.written is not None:
        # Earlier releases refuse keys that they do not know, but not inside the fields.
        values["fields"] = {**(record.fields or {}), _WRITTEN: vars(record.written)}
    return json.dumps(values, ensure_ascii=False)


def decode_record(stored: bytes) -> ItemRecord:
    """Return a record from its text.

    Raises:
        UnreadableError: If ``encode_record`` cannot have written the text.
    """
    try:
        _Stored.model_validate_json(stored)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the text"
        raise UnreadableError(f"{place}: {first['msg']}") from error
    values = json.loads(stored)
    fields = values.get("fields") or {}
    times = fields.pop(_WRITTEN, None)
    written = None if times is None else Written(**times)
    absent = written.changed_us.keys() - {PICTURE, *fields} if written else ()
    if absent:
        raise UnreadableError(f"fields: {min(absent)} has the time of a change and no value")
    return ItemRecord(**(values | {"fields": fields or None}), written=written)


def fields_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of ``ItemSchema`` as the ``fields`` of a record; equal items have equal ones."""
    created_at: datetime | None = row["created_at"]
    pairs = sorted(row["attributes"], key=lambda pair: (pair["key"], pair["value"]))
    fields = {name: value for name, value in row.items() if name != "item_id"}
    return fields | {
        "attributes": pairs,
        "created_at": created_at.isoformat() if created_at else None,
    }


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
