"""Items that callers add to a catalogue: DataFrames or records, and their pictures."""

import os
import stat
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from recsys.answers import Item
from recsys.data.coercion import coerce
from recsys.data.frames import Frame, to_polars
from recsys.data.ids import trim_id
from recsys.data.quarantine import ROW, Quarantine, validate
from recsys.errors import FileAccessError, InvalidArgumentError, InvalidImageError
from recsys.schema import ItemSchema, is_first_of_its_id
from vision.images import MAX_BYTES

Picture = bytes | str | Path


def read_items(items: Frame | Sequence[Item]) -> pl.DataFrame:
    """Return items as a table of ``ItemSchema``.

    Args:
        items: DataFrame of any library with the Arrow interface, or ``Item`` records.

    Raises:
        InvalidArgumentError: If ``items`` is of another type.
        SchemaError: If columns or types are not what the schema wants.
        DataError: If the table is empty, or an item breaks a rule of the schema.
    """
    if isinstance(items, Sequence) and not isinstance(items, str | bytes | Frame):
        frame = _from_records(items)
    else:
        frame = to_polars(items, table="items")
    loaded = validate(
        coerce(frame.lazy(), ItemSchema, table="items"),
        ItemSchema,
        table="items",
        rules={"item_id_is_unique": is_first_of_its_id(pl.col("item_id"))},
    )
    Quarantine((loaded.report,)).require_empty()
    return loaded.frame.drop(ROW)


def read_pictures(
    pictures: Mapping[str, Picture | None] | Sequence[Picture | None], items: pl.DataFrame
) -> list[bytes | None]:
    """Return the bytes of each item's picture (B entries), None for items without a picture.

    Args:
        pictures: Pictures by item id, or one entry per item.
        items: Table of ``ItemSchema`` (B rows), whose column ``image`` is not read.

    Raises:
        InvalidArgumentError: If ``pictures`` is of another type, a picture belongs to no item, an
            item names an image and has no entry, or the lengths disagree.
        FileAccessError: If a picture's file cannot be read.
    """
    item_ids = items["item_id"].to_list()
    if isinstance(pictures, Mapping):
        of_item = {trim_id(str(item_id)): picture for item_id, picture in pictures.items()}
        strays = sorted(of_item.keys() - set(item_ids))
        if strays:
            raise InvalidArgumentError(
                f"pictures must be of items in the same call, got others: {strays[:5]}"
            )
        named = items.filter(pl.col("image").is_not_null())["item_id"]
        unread = [item_id for item_id in named if item_id not in of_item]
        if unread:
            raise InvalidArgumentError(
                "pictures must have an entry for every item with an image, which is stored and "
                f"not read, got none for {unread[:5]}; pass the bytes or path by item_id, or None "
                "to embed the words alone"
            )
        return [read_image(of_item.get(item_id)) for item_id in item_ids]
    # A column of a DataFrame is fine, too; a set has no order.
    is_list = isinstance(pictures, Collection) and not isinstance(pictures, bytes | str | Set)
    if not is_list or len(pictures) != len(item_ids):
        got = f"{len(pictures)} entries" if is_list else type(pictures).__name__
        raise InvalidArgumentError(
            f"pictures must be a list with one entry per item ({len(item_ids)}), got {got}"
        )
    return [read_image(picture) for picture in pictures]


def read_image(image: Picture | None) -> bytes | None:
    """Return the bytes of an image; None without an image, or with empty bytes.

    Args:
        image: Bytes or path.

    Raises:
        FileAccessError: If the file cannot be read, or is a device or a pipe.
        InvalidImageError: If the file is empty.
        InvalidArgumentError: If it is neither bytes nor a path.
    """
    if image is None or isinstance(image, bytes):
        return image or None
    if not isinstance(image, str | Path):
        raise InvalidArgumentError(f"an image must be bytes or a path, got {type(image).__name__}")
    try:
        with Path(image).open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # reading it might never end
                raise FileAccessError(f"image {image} must be a regular file")
            data = file.read(MAX_BYTES + 1)  # the decoder refuses what is longer
    except FileAccessError:
        raise
    except (OSError, ValueError) as error:
        raise FileAccessError(f"image {image} must be a readable file: {error}") from error
    if not data:
        raise InvalidImageError(f"image {str(image)!r} must not be an empty file, got 0 bytes")
    return data


def _from_records(items: Sequence[Item]) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for item in items:
        if not isinstance(item, Item):
            raise InvalidArgumentError(
                f"items must be a DataFrame or Item records, got {type(item).__name__}"
            )
        if not isinstance(item.attributes, Mapping):
            raise InvalidArgumentError(
                f"attributes of item {item.item_id!r} must be a mapping of names to values, got "
                f"{item.attributes!r}"
            )
        pairs = [{"key": key, "value": value} for key, value in item.attributes.items()]
        rows.append(asdict(item) | {"category": list(item.category), "attributes": pairs})
    try:
        return pl.DataFrame(rows, schema=dict(ItemSchema.create_empty().schema))
    except (TypeError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidArgumentError(
            f"items must have fields of the types that Item declares: {reason}"
        ) from error
