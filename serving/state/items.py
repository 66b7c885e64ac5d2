"""The live catalogue: items that callers change, and every change put into effect here."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from recsys.errors import InvalidArgumentError
from recsys.schema import ItemSchema
from serving.engine.embeddings import EmbeddingTiers, picture_digest
from serving.errors import UnavailableError
from serving.state.bundled import Judged
from serving.state.changelog import PICTURE_BYTES, READ_COUNT, LiveCatalogue
from serving.state.changes import Change, Forgetting, SupersededError
from serving.state.connection import RedisConnection
from serving.state.record_embedder import RecordEmbedder
from serving.state.records import PICTURE, ItemRecord, Written, fields_of
from serving.state.served_items import ServedItems
from serving.state.unreadable import Unreadable

logger = logging.getLogger(__name__)

_ATTEMPTS = 10  # of an upsert, while others change its pictures
_APPLY_TIMEOUT_S = 10.0  # longest wait of a write until it is in effect here


class NewItem(NamedTuple):
    """An item to store.

    Args:
        fields: Row of ``ItemSchema``.
        picture: Bytes of the picture; empty removes the picture, None keeps the one there is.
    """

    fields: dict[str, Any]
    picture: bytes | None


class LiveItem(NamedTuple):
    """A live record, beside the bundle's table."""

    record: ItemRecord
    judged: Judged


class LiveItems:
    """Upserts and deletes items, and puts every change, whoever made it, into effect here.

    Args:
        served: Items that this replica answers with.
        tiers: Tiers of embeddings.
        connection: Connection to Redis.
        follower: Second connection, whose reads block.
        namespace: First part of the keys.
        unreadable: What takes note of records that cannot be read.
        picture_bytes: Largest size of all stored pictures together.
    """

    def __init__(
        self,
        served: ServedItems,
        tiers: EmbeddingTiers,
        connection: RedisConnection,
        follower: RedisConnection,
        *,
        namespace: str,
        unreadable: Unreadable,
        picture_bytes: int = PICTURE_BYTES,
    ) -> None:
        self._served = served
        self._bundled = served.bundled
        self._live = LiveCatalogue(
            connection,
            follower,
            namespace=namespace,
            apply=self._apply,
            revert=served.revert,
            unreadable=unreadable,
            picture_bytes=picture_bytes,
        )
        self._embedder = RecordEmbedder(
            tiers, served.bundled, self._live, identifies=served.identifies
        )

    @property
    def stale(self) -> bool:
        """Whether changes of other replicas may be missing."""
        return self._live.stale

    async def start(self) -> None:
        """Apply all stored changes, then follow new ones; errors as ``LiveCatalogue.start``."""
        await self._live.start()
        now_us = await self._now_us()
        ahead_us = self._bundled.write_time_us(now_us) - now_us
        if ahead_us:
            logger.warning(
                "the items of bundle %s were exported %.0f s from now by the clock of Redis; one "
                "clock is wrong: until then, changes made under other bundles count as older",
                self._bundled.version,
                ahead_us / 1e6,
            )

    async def stop(self) -> None:
        """Stop following."""
        await self._live.stop()

    async def upsert(self, items: Sequence[NewItem]) -> None:
        """Store items; on return they are durable and served here.

        Raises:
            InvalidImageError: If a picture is not a readable image.
            InvalidArgumentError: If an item's words change while its picture is only in the bundle.
            UnavailableError: If Redis is away, or others keep changing the pictures.
        """
        for _ in range(_ATTEMPTS):
            try:
                await self._upsert_once(items)
            except SupersededError:
                continue
            return
        raise UnavailableError(
            "items sent without pictures must keep theirs while they are embedded, but others "
            f"changed one in each of {_ATTEMPTS} attempts; send the pictures along, or call "
            "again"
        )

    async def delete(self, item_ids: Sequence[str]) -> int:
        """Leave items out of all answers and return how many of them were in the catalogue.

        Raises:
            UnavailableError: If Redis is away.
        """
        known = await self._served.known(item_ids)
        if not known:
            return 0
        written = self._written(await self._now_us())
        changes = [Change(ItemRecord(one, deleted=True, written=written)) for one in known]
        await self._live.write(changes, timeout_s=_APPLY_TIMEOUT_S)
        return len(known)

    async def scan(self, cursor: int, count: int) -> tuple[int, list[LiveItem]]:
        """Return some live records; arguments and errors as for ``LiveCatalogue.scan``."""
        cursor, found = await self._live.scan(cursor, count)
        return cursor, [LiveItem(record, self._bundled.judge(record)) for record, _ in found]

    async def forget(self, item_ids: Sequence[str]) -> int:
        """Remove live records and return how many there were; the bundle's items are served.

        Raises:
            UnavailableError: If Redis is away.
        """
        _, records = await self._live.look_up(item_ids)
        return await self._forget(
            [Forgetting(self._bundled.stand_in(one.item_id)) for one in records if one is not None]
        )

    async def forget_many(self, which: Literal["superseded", "all"]) -> int:
        """Remove all live records, or those of which nothing counts, and return how many.

        Raises:
            UnavailableError: If Redis is away.
        """
        forgotten, cursor = 0, None
        while cursor != 0:
            following, found = await self._live.scan(cursor or 0, READ_COUNT)
            chosen = [
                Forgetting(
                    self._bundled.stand_in(record.item_id), text if which == "superseded" else None
                )
                for record, text in found
                if which == "all" or not self._bundled.judge(record).counts
            ]
            try:
                forgotten += await self._forget(chosen)
            except SupersededError:
                continue  # one of them has been replaced, or removed: look again
            cursor = following
        return forgotten

    async def _forget(self, forgettings: Sequence[Forgetting]) -> int:
        await self._live.write(forgettings, timeout_s=_APPLY_TIMEOUT_S)
        return len(forgettings)

    async def _upsert_once(self, items: Sequence[NewItem]) -> None:
        time_us, stored = await self._live.look_up([item.fields["item_id"] for item in items])
        written = self._written(time_us)
        changes = [
            self._change(item, record, written) for item, record in zip(items, stored, strict=True)
        ]
        # Whatever can be wrong is found before anything is stored.
        ItemSchema.validate(self._bundled.table([change.record for change in changes]))
        await asyncio.gather(
            *(
                self._embedder.embed_new(change.record, item.picture)
                for change, item in zip(changes, items, strict=True)
            )
        )
        await self._live.write(changes, timeout_s=_APPLY_TIMEOUT_S)

    async def _now_us(self) -> int:
        return (await self._live.look_up([])).time_us

    def _written(self, time_us: int) -> Written:
        """Return when and against which bundle a record is written that has no changes yet."""
        return Written(self._bundled.write_time_us(time_us), self._bundled.version)

    def _change(self, item: NewItem, stored: ItemRecord | None, written: Written) -> Change:
        """Return the change that stores an item.

        Args:
            item: The item as the call has it.
            stored: The item's record in Redis, None where it was never changed.
            written: When the item is changed.
        """
        before = self._before(item.fields["item_id"], stored)
        record = _given(item, before.served)
        record = replace(record, written=_with_changes(written, record, before))
        if item.picture is not None:
            return Change(record, item.picture or None)
        if record.picture == "bundle" and not self._bundled.has_words(record):
            raise InvalidArgumentError(
                f"item {record.item_id!r} has new words, and its picture is known to the bundle "
                "only; send the picture along, or empty bytes to go without"
            )
        if stored is not None and not stored.is_readable:
            return Change(record)  # it was made from the bundle's item alone
        # Embedding it takes a while, in which others may replace the picture that it names.
        return Change(record, "same" if record.picture == "stored" else None, seen=stored)

    def _before(self, item_id: str, stored: ItemRecord | None) -> Judged:
        """Return what is served of an item before a change."""
        if stored is not None:
            return self._bundled.judge(stored)
        return Judged(self._bundled.stand_in(item_id), {}, counts=False)

    async def _apply(self, records: Sequence[ItemRecord]) -> None:
        """Put changes into effect; one that cannot be does not stop the others."""
        try:
            await self._apply_together(records)
        except UnavailableError:
            raise
        except Exception:
            if len(records) == 1:
                logger.exception("item %r is left out", records[0].item_id)
                return
            for record in records:
                await self._apply([record])

    async def _apply_together(self, records: Sequence[ItemRecord]) -> None:
        """Put changes into effect at once; of several to one item the last one counts."""
        latest = {record.item_id: record for record in records}
        items = [(record, self._bundled.judge(record).served) for record in latest.values()]
        live = [(record, served) for record, served in items if not served.deleted]
        embedded = await asyncio.gather(*(self._embedder.embed_stored(*pair) for pair in live))
        pairs = zip(live, embedded, strict=True)
        current = [(served, one) for (_, served), one in pairs if one is not None]
        await self._served.change(current, [one.item_id for _, one in items if one.deleted])


def _given(item: NewItem, before: ItemRecord) -> ItemRecord:
    """Return an item as a call gives it, with the picture it had where the call gives none."""
    given = ItemRecord(item.fields["item_id"], fields=fields_of(item.fields))
    if item.picture is None:
        return replace(given, picture=before.picture, picture_digest=before.picture_digest)
    if item.picture == b"":
        return given
    return replace(given, picture="stored", picture_digest=picture_digest(item.picture))


def _with_changes(written: Written, record: ItemRecord, before: Judged) -> Written:
    """Return ``written`` with the time of each value that is not the table's.

    Callers send whole items, so a value that was served before keeps its time, and a value of the
    table has none.

    Args:
        written: When the record is written.
        record: The record to write.
        before: What was served before.
    """
    was, now = _values(before.served), _values(record)
    changed = {
        name: written.at_us for name in now if before.served.deleted or now[name] != was[name]
    }
    return replace(written, changed_us={**before.counting, **changed})


def _values(record: ItemRecord) -> dict[str, Any]:
    """Return what can change of an item."""
    return {**(record.fields or {}), PICTURE: (record.picture, record.picture_digest)}
