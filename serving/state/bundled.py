"""The items of the bundle, with which live records are compared."""

from collections.abc import Mapping, Sequence

import polars as pl

from recsys.catalogue.embedder import item_texts
from serving.state.records import ItemRecord, build_table


class BundledItems:
    """Answers what the bundle knows of an item.

    Args:
        items: Items of the bundle, a table of ``ItemSchema``.
    """

    def __init__(self, items: pl.DataFrame) -> None:
        self.items = items
        self.row_of: Mapping[str, int] = {item_id: n for n, item_id in enumerate(items["item_id"])}

    def __contains__(self, item_id: str) -> bool:
        return item_id in self.row_of

    def has_picture(self, item_id: str) -> bool:
        """Return whether the bundle has the item, with a picture."""
        row = self.row_of.get(item_id)
        return row is not None and self.items["image"][row] is not None

    def has_words(self, record: ItemRecord) -> bool:
        """Return whether the bundle has the item, with the words that the record has."""
        row = self.row_of.get(record.item_id)
        return row is not None and item_texts(self.items[row])[0] == self.text(record)

    def table(self, records: Sequence[ItemRecord]) -> pl.DataFrame:
        """Return records as a table with the columns of the bundle's."""
        return build_table(records, self.items.schema)

    def text(self, record: ItemRecord) -> str | None:
        """Return the text that an item's embedding is made from; None without any words."""
        return item_texts(self.table([record]))[0]
