"""Histories of users by their id: events of the bundle, and events that callers pass."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import numpy as np

from recsys.answers import Event
from recsys.catalogue.store import Catalogue
from recsys.data.interactions import EMPTY_HISTORY, History, Interactions, merge_histories
from recsys.data.timestamps import to_us
from recsys.errors import InvalidArgumentError


class UserHistories:
    """Finds a user's history, in rows of a catalogue that may grow.

    Args:
        catalogue: Items; its first rows are those of the interactions.
        interactions: Events of the bundle; None if it has no events.
    """

    def __init__(self, catalogue: Catalogue, interactions: Interactions | None) -> None:
        self._catalogue = catalogue
        self._bundled: dict[str, History] = {}
        self.kind_names: Sequence[str] = ()
        if interactions is not None:
            # Bundles of earlier releases may have kinds in upper case; events no longer do.
            self.kind_names = [name.lower() for name in interactions.kind_names]
            self._bundled = dict(zip(interactions.user_ids, interactions.histories(), strict=True))

    def find(self, user: str | History) -> History:
        """Return the bundled history of a user id, empty for an unknown one; a history as it is.

        Raises:
            InvalidArgumentError: If ``user`` is neither, or an empty text.
        """
        if isinstance(user, History):
            return user
        if not isinstance(user, str):
            raise InvalidArgumentError(
                f"a user must be a user id (text) or a History, got {user!r} of type "
                f"{type(user).__name__}"
            )
        if not user.strip():
            raise InvalidArgumentError(f"a user id must not be empty, got {user!r}")
        return self._bundled.get(user, EMPTY_HISTORY)

    def find_each(self, users: Iterable[str | History]) -> list[History]:
        """Return what ``find`` does for each user.

        Raises:
            InvalidArgumentError: If ``users`` is a text, or as for ``find``.
        """
        if isinstance(users, str):
            raise InvalidArgumentError(f"users must be a list, got the text {users!r}")
        return [self.find(user) for user in users]

    def with_events(self, user_id: str, events: Iterable[Event]) -> History:
        """Return the user's bundled events and those of ``events``, merged.

        Args:
            user_id: The caller's id.
            events: Events in any order; those of other users, of unknown items and of unknown kinds
                are left out, and an event without a timestamp happens now.

        Raises:
            InvalidArgumentError: If a timestamp has no time zone.
        """
        now = datetime.now(UTC)
        row_of = self._catalogue.row_of
        kinds = {name: code for code, name in enumerate(self.kind_names)}
        live = [
            (row_of[event.item_id], kinds[event.kind], to_us("timestamp", event.timestamp or now))
            for event in events
            if event.user_id == user_id and event.item_id in row_of and event.kind in kinds
        ]
        columns = np.array(live, dtype=np.int64).reshape(-1, 3).T
        return merge_histories(self.find(user_id), History(*columns), self._catalogue.item_ids)
