"""Histories of users by their id: events of the bundle, and events that callers pass."""

import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import numpy as np

from recsys.answers import Event
from recsys.catalogue.store import Catalogue
from recsys.data.ids import trim_id
from recsys.data.interactions import EMPTY_HISTORY, History, Interactions, merge_histories
from recsys.data.timestamps import to_us
from recsys.errors import InvalidArgumentError

logger = logging.getLogger(__name__)


class UserHistories:
    """Finds a user's history, in rows of a catalogue that may grow.

    Args:
        catalogue: Items; its first rows are those of the interactions.
        interactions: Events of the bundle; None if it has no events.
    """

    def __init__(self, catalogue: Catalogue, interactions: Interactions | None) -> None:
        self._catalogue = catalogue
        self._bundled: dict[str, History] = {}
        self._has_logged = False
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
        user_id = trim_id(user)
        if not user_id:
            raise InvalidArgumentError(f"a user id must not be empty, got {user!r}")
        return self._bundled.get(user_id, EMPTY_HISTORY)

    def find_each(self, users: Iterable[str | History]) -> list[History]:
        """Return what ``find`` does for each user.

        Raises:
            InvalidArgumentError: If ``users`` is not a list, or as for ``find``.
        """
        if isinstance(users, str) or not isinstance(users, Iterable):
            kind = "the text " if isinstance(users, str) else ""
            raise InvalidArgumentError(f"users must be a list, got {kind}{users!r}")
        return [self.find(user) for user in users]

    def with_events(self, user_id: str, events: Iterable[Event]) -> History:
        """Return the user's bundled events and those of ``events``, merged.

        Args:
            user_id: The caller's id.
            events: Events in any order; those of other users, of unknown items and of unknown kinds
                are left out, and an event without a timestamp happens now. The first call that
                leaves out some of the user's own logs how many.

        Raises:
            InvalidArgumentError: If ``events`` are not events, or a timestamp has no time zone.
        """
        bundled = self.find(user_id)
        now = datetime.now(UTC)
        kinds = {name: code for code, name in enumerate(self.kind_names)}
        own = _events_of(user_id, events)
        live = [
            (row, kinds[event.kind], to_us("timestamp", event.timestamp or now))
            for event in own
            if (row := self._catalogue.find(event.item_id)) is not None and event.kind in kinds
        ]
        if len(live) < len(own) and not self._has_logged:
            self._has_logged = True
            logger.warning(
                "%d of %d events of a user are left out, as the bundle does not know their items "
                "or kinds (%s); this is logged once",
                len(own) - len(live),
                len(own),
                ", ".join(self.kind_names) or "none",
            )
        columns = np.array(live, dtype=np.int64).reshape(-1, 3).T
        return merge_histories(bundled, History(*columns), self._catalogue.item_ids)


def _events_of(user_id: str, events: Iterable[Event]) -> list[Event]:
    """Return the events of one user; blanks around ids do not count."""
    passed = list(events) if isinstance(events, Iterable) else []
    wrong = [one for one in passed if not isinstance(one, Event)]
    if wrong or not isinstance(events, Iterable):
        got = type(wrong[0] if wrong else events).__name__
        raise InvalidArgumentError(f"events must be a list of Event records, got {got}")
    return [event for event in passed if trim_id(str(event.user_id)) == trim_id(user_id)]
