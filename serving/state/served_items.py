"""The items that this replica answers with: recommender and identifier, changed together."""

from collections.abc import Iterable, Sequence

import numpy as np

from recsys.identifier import ProductIdentifier
from recsys.recommender import Recommender
from serving.engine.compute import ComputeThread
from serving.state.bundled import BundledItems
from serving.state.record_embedder import Embedded
from serving.state.records import ItemRecord


class ServedItems:
    """Puts records into effect in the models, on their thread.

    Args:
        recommender: Recommender over the bundle.
        identifier: Identifier over the recommender; None where the bundle does not identify.
        compute: Thread on which both run.
        bundled: Items of the bundle.
    """

    def __init__(
        self,
        recommender: Recommender,
        identifier: ProductIdentifier | None,
        *,
        compute: ComputeThread,
        bundled: BundledItems,
    ) -> None:
        self._recommender = recommender
        self._identifier = identifier
        self._compute = compute
        # Items that are identified by another picture than the bundle's.
        self._own_pictures: set[str] = set()
        self.bundled = bundled
        self.identifies = identifier is not None

    async def known(self, item_ids: Sequence[str]) -> list[str]:
        """Return those of the items that are served now.

        Raises:
            OverloadedError: If too many calls are waiting.
        """
        catalogue = self._recommender.catalogue
        return await self._compute.run(lambda: [one for one in item_ids if one in catalogue])

    async def change(
        self, live: Sequence[tuple[ItemRecord, Embedded]], deleted: Sequence[str]
    ) -> None:
        """Add or replace items, and leave others out of all answers.

        Args:
            live: Records of items to serve, with their embeddings.
            deleted: Ids of items to leave out.
        """
        await self._compute.run_always(self._change, live, deleted)

    async def revert(self, item_ids: Sequence[str]) -> None:
        """Serve items as the bundle has them, and leave out those that it does not have."""
        await self._compute.run_always(self._revert, item_ids)

    def _change(self, live: Sequence[tuple[ItemRecord, Embedded]], deleted: Sequence[str]) -> None:
        if live:
            table = self.bundled.table([record for record, _ in live])
            self._recommender.add_embedded(table, np.stack([embedded.item for _, embedded in live]))
        pictures = {record.item_id: one.picture for record, one in live if one.picture is not None}
        if self._identifier is not None and pictures:
            self._identifier.set_pictures(list(pictures), np.stack(list(pictures.values())))
            self._own_pictures |= pictures.keys()
        self._reset_pictures(record.item_id for record, one in live if one.picture is None)
        if deleted:
            self._recommender.delete_items(deleted)

    def _revert(self, item_ids: Sequence[str]) -> None:
        known = [item_id for item_id in item_ids if item_id in self.bundled]
        rows = [self.bundled.row_of[item_id] for item_id in known]
        if rows:
            embeddings = self._recommender.bundle.item_embeddings[rows]
            self._recommender.add_embedded(
                self.bundled.items[rows], np.asarray(embeddings, np.float32)
            )
            self._reset_pictures(known)
        self._recommender.delete_items(
            [item_id for item_id in item_ids if item_id not in self.bundled]
        )

    def _reset_pictures(self, item_ids: Iterable[str]) -> None:
        """Identify items by the bundle's pictures again, as after Redis lost a newer one."""
        changed = [item_id for item_id in item_ids if item_id in self._own_pictures]
        if self._identifier is not None and changed:
            self._identifier.reset_pictures(changed)
            self._own_pictures.difference_update(changed)
