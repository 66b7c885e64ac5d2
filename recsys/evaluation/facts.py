"""What is known about a bundle's items at the split, by which exposure and slices are measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from recsys.bundle import Bundle
from recsys.data.arrays import Doubles, Floats
from recsys.data.interactions import Interactions
from recsys.errors import InvalidArgumentError
from recsys.ranking.baselines import distinct_users

MAX_LABELS = 8  # values of an item column that are shown, most frequent first
REST = "other"
UNKNOWN = "unknown"


@dataclass(frozen=True, eq=False)
class ItemFacts:
    """What is known about the items at the split.

    Args:
        n_users: Number of users with an event of a target kind.
        buyers: Number of distinct users who took each item (N,).
        embeddings: Item embeddings (N, D); a row of zeros is an item without one.
        labels: Label of each item (N,), by the name of the item column that it is from.
    """

    n_users: int
    buyers: Doubles
    embeddings: Floats
    labels: Mapping[str, Sequence[str]]


def item_facts(bundle: Bundle, taken: Interactions, columns: Sequence[str]) -> ItemFacts:
    """Return the facts about a bundle's items.

    Args:
        bundle: A bundle with its ranking part.
        taken: Events of the target kinds before the split.
        columns: Columns or attributes of the items table to label the items by. A column that has
            one value is left out.

    Raises:
        InvalidArgumentError: If the items lack a column or attribute.
    """
    labels = {column: label_items(bundle.items, column) for column in columns}
    return ItemFacts(
        n_users=len(np.unique(taken.user_rows)),
        buyers=distinct_users(taken).astype(np.float64),
        embeddings=bundle.item_embeddings,
        labels={column: values for column, values in labels.items() if len(set(values)) > 1},
    )


def label_items(items: pl.DataFrame, column: str) -> list[str]:
    """Return one label per item from a column of the items table, or from an attribute (N entries).

    Numbers become thirds, a path its first level; rare values become "other".

    Args:
        items: Items table of a bundle.
        column: Name of a column, or of an attribute such as "brand".

    Raises:
        InvalidArgumentError: If the table has neither.
    """
    return label_values(_values(items, column))


def label_values(values: pl.Series) -> list[str]:
    """Return one label per value: thirds of numbers, else the value, or "other" if it is rare."""
    if values.dtype.is_numeric():
        return thirds(values.cast(pl.Float64).to_numpy())
    text = values.cast(pl.String).fill_null(UNKNOWN)
    frequent = text.value_counts(sort=True)[text.name].head(MAX_LABELS)
    return (
        text.to_frame("label")
        .select(
            pl.when(pl.col("label").is_in(frequent.implode())).then("label").otherwise(pl.lit(REST))
        )["label"]
        .to_list()
    )


def _values(items: pl.DataFrame, column: str) -> pl.Series:
    columns = [name for name in items.columns if name != "attributes"]
    if column in columns:
        values = items[column]
        return values.list.first() if isinstance(values.dtype, pl.List) else values
    keys = items["attributes"].list.eval(pl.element().struct.field("key")).explode().unique()
    if column not in keys:
        known = [*columns, *sorted(keys.drop_nulls().to_list())]
        raise InvalidArgumentError(
            f"exposure_by must name columns or attributes of the items, {known[:30]}, "
            f"got {column!r}"
        )
    chosen = pl.element().filter(pl.element().struct.field("key") == column)
    return items["attributes"].list.eval(chosen.struct.field("value")).list.first().alias(column)


def thirds(values: Doubles) -> list[str]:
    """Return "low", "middle" or "high" for each number by its rank, "unknown" for NaN.

    Equal numbers have one label, so the thirds may differ in size.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return [UNKNOWN] * len(values)
    low, high = np.quantile(known, [1 / 3, 2 / 3], method="inverted_cdf")
    names = np.where(values <= low, "low", np.where(values <= high, "middle", "high"))
    labels: list[str] = np.where(np.isnan(values), UNKNOWN, names).tolist()
    return labels
