"""The items of the bundle, and for each live record whether it or the bundle's table is newer."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import polars as pl

from recsys.catalogue.embedder import item_text
from serving.state.records import PICTURE, ItemRecord, Written, build_table, fields_of


class Judged(NamedTuple):
    """A live record beside the bundle's table.

    Args:
        served: The item to serve; deleted where it is to be left out of all answers.
        counting: Times of the record's changes that are newer than the table, by field.
        counts: Whether anything of the record is newer than the table.
    """

    served: ItemRecord
    counting: Mapping[str, int]
    counts: bool


class BundledItems:
    """Answers what the bundle knows of an item, and what of a live record is newer.

    Args:
        items: Items of the bundle, a table of ``ItemSchema``.
        version: Version of the bundle.
        as_of_us: Time at which the table was exported, microseconds UTC. None, as in bundles of
            earlier releases, takes every live record as newer.
    """

    def __init__(
        self, items: pl.DataFrame, *, version: str = "", as_of_us: int | None = None
    ) -> None:
        self.items = items
        self.version = version
        self.row_of: Mapping[str, int] = {item_id: n for n, item_id in enumerate(items["item_id"])}
        self._as_of_us = as_of_us

    def __contains__(self, item_id: str) -> bool:
        return item_id in self.row_of

    def record(self, item_id: str) -> ItemRecord | None:
        """Return an item as the bundle has it, None if it does not."""
        row = self.row_of.get(item_id)
        if row is None:
            return None
        values = self.items.row(row, named=True)
        return ItemRecord(
            item_id,
            picture="none" if values["image"] is None else "bundle",
            fields=fields_of(values),
        )

    def stand_in(self, item_id: str) -> ItemRecord:
        """Return an item as the bundle has it; deleted if the bundle does not have it."""
        return self.record(item_id) or ItemRecord(item_id, deleted=True)

    def judge(self, record: ItemRecord) -> Judged:
        """Return what is served of a live record: of each value the newer, its or the table's."""
        if not record.is_readable:
            return Judged(self.stand_in(record.item_id), {}, counts=False)
        written, table = record.written or Written(0), self.record(record.item_id)
        counting = {
            name: time_us for name, time_us in written.changed_us.items() if self._is_newer(time_us)
        }
        if self._as_of_us is None:
            return Judged(record, counting, counts=True)
        if record.deleted or table is None:
            counts = self._is_newer(written.at_us)
            return Judged(record if counts else table or _discontinued(record), counting, counts)
        return Judged(self._merge(record, table, counting), counting, bool(counting))

    def write_time_us(self, time_us: int) -> int:
        """Return the time of a change that is made now: later than the table that it changes.

        Args:
            time_us: Time by the clock of Redis, which may be behind the one that dated the table.
        """
        return time_us if self._is_newer(time_us) else (self._as_of_us or 0) + 1

    def has_words(self, record: ItemRecord) -> bool:
        """Return whether the bundle has the item, with the words that the record has."""
        table = self.record(record.item_id)
        return table is not None and self.text(table) == self.text(record)

    def table(self, records: Sequence[ItemRecord]) -> pl.DataFrame:
        """Return records as a table with the columns of the bundle's."""
        return build_table(records, self.items.schema)

    def text(self, record: ItemRecord) -> str | None:
        """Return the text that an item's embedding is made from; None without any words."""
        fields = record.fields or {}
        return item_text(fields.get("title"), fields.get("description"))

    def _is_newer(self, time_us: int) -> bool:
        return self._as_of_us is None or time_us > self._as_of_us

    def _merge(
        self, record: ItemRecord, table: ItemRecord, counting: Collection[str]
    ) -> ItemRecord:
        if not counting:
            return table
        theirs: dict[str, Any] = record.fields or {}
        fields = {
            name: theirs[name] if name in counting else value
            for name, value in (table.fields or {}).items()
        }
        merged = replace(table, fields=fields)
        # The bundle has embeddings and no pictures, so newer words cannot be embedded with its own.
        is_needed = record.picture == "stored" and not self.has_words(merged)
        if PICTURE in counting or is_needed:
            return replace(merged, picture=record.picture, picture_digest=record.picture_digest)
        return merged


def _discontinued(record: ItemRecord) -> ItemRecord:
    """Return an item that the table no longer has; a stored picture waits for its return."""
    is_stored = record.picture == "stored"
    return replace(record, deleted=True, picture=record.picture if is_stored else "none")
