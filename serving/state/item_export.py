"""Write the live catalogue as an items table: the bundle's items with what callers changed."""

import io
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl
from PIL import Image

from recsys.bundle import Bundle
from recsys.data.files import make_folder, whole_file
from serving.engine.embeddings import picture_digest
from serving.state.bundled import BundledItems
from serving.state.changelog import LiveCatalogue
from serving.state.connection import RedisConnection
from serving.state.records import ItemRecord
from serving.state.unreadable import Unreadable

logger = logging.getLogger(__name__)

PICTURES = "live"  # folder of the pictures that callers sent, under the images root


class ExportedItems(NamedTuple):
    """What an export wrote.

    Args:
        file: The items table.
        n_items: Number of its rows.
        n_changed: Number of those that are not as in the bundle.
        n_deleted: Number of items of the bundle that callers deleted.
        n_pictures: Number of items whose picture callers sent.
        as_of_us: Time up to which changes are in the table, microseconds UTC by the clock of Redis.
    """

    file: Path
    n_items: int
    n_changed: int
    n_deleted: int
    n_pictures: int
    as_of_us: int


async def export_items(
    bundle: Bundle,
    connection: RedisConnection,
    file: Path,
    *,
    images_root: Path,
    namespace: str,
) -> ExportedItems:
    """Write the items that a service over the bundle serves now as an items table.

    The file has the time at which the export began. So a bundle that is trained on it supersedes
    the changes that are in it, and none that was made later.

    Args:
        bundle: Bundle that is served.
        connection: Connection to the Redis of the service.
        file: Parquet file to write.
        images_root: Folder that the table's picture paths are relative to. Pictures that callers
            sent are written into a folder of it, and named by their content.
        namespace: First part of the keys, as the service has it.

    Raises:
        UnavailableError: If Redis is away.
        FileAccessError: If a file cannot be written.
    """
    make_folder(images_root / PICTURES)
    bundled = BundledItems(bundle.items, version=bundle.version, as_of_us=bundle.items_as_of_us)
    live, records = _following(connection, namespace)
    as_of_us = (await live.look_up([])).time_us
    await live.start()
    await live.stop()
    judged = [bundled.judge(record) for _, record in sorted(records.items())]
    served = [one.served for one in judged if not one.served.deleted]
    rows = [await _with_picture(one, live, images_root) for one in served]
    deleted = [one.served.item_id for one in judged if one.served.deleted]
    table = _merge(bundled, rows, deleted)
    with whole_file(file) as scratch:
        table.write_parquet(scratch)
        os.utime(scratch, ns=(as_of_us * 1000, as_of_us * 1000))
    return ExportedItems(
        file=file,
        n_items=len(table),
        n_changed=sum(one.counts and not one.served.deleted for one in judged),
        n_deleted=sum(one in bundled for one in deleted),
        n_pictures=sum(one.picture == "stored" for one in served),
        as_of_us=as_of_us,
    )


def _following(
    connection: RedisConnection, namespace: str
) -> tuple[LiveCatalogue, dict[str, ItemRecord]]:
    """Return the live catalogue, and the records that it will have read once it has started."""
    records: dict[str, ItemRecord] = {}

    async def apply(some: Sequence[ItemRecord]) -> None:
        records.update({record.item_id: record for record in some})

    async def revert(item_ids: Sequence[str]) -> None:
        for item_id in item_ids:
            records.pop(item_id, None)

    live = LiveCatalogue(
        connection,
        connection,
        namespace=namespace,
        apply=apply,
        revert=revert,
        unreadable=Unreadable(lambda kind: None),
    )
    return live, records


async def _with_picture(record: ItemRecord, live: LiveCatalogue, root: Path) -> ItemRecord:
    """Return a record whose ``image`` names its picture, which is written if callers sent it."""
    if record.picture != "stored":
        return record
    data = await live.picture(record.item_id)
    if data is None:
        logger.warning("item %r is written without its picture, which is gone", record.item_id)
        return record
    with Image.open(io.BytesIO(data)) as picture:
        suffix = (picture.format or "image").lower()
    path = Path(PICTURES, f"{picture_digest(data)[:32]}.{suffix}")
    if not (root / path).exists():
        with whole_file(root / path) as scratch:
            scratch.write_bytes(data)
    return ItemRecord(record.item_id, fields={**(record.fields or {}), "image": path.as_posix()})


def _merge(
    bundled: BundledItems, records: Sequence[ItemRecord], deleted: Sequence[str]
) -> pl.DataFrame:
    """Return the bundle's items without the deleted ones, with some replaced, then new ones."""
    changed = [record.item_id for record in records]
    kept = bundled.items.filter(~pl.col("item_id").is_in([*changed, *deleted]))
    both = pl.concat([kept, bundled.table(records)])
    last = len(bundled.row_of)
    places = pl.Series([bundled.row_of.get(one, last) for one in both["item_id"]], dtype=pl.Int64)
    return both[places.arg_sort().to_list()]
