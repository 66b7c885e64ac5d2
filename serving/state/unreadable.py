"""What Redis holds and this release cannot read: counted, and the first of a kind logged."""

import logging
from collections.abc import Callable
from typing import Literal

from serving.errors import ServingError

logger = logging.getLogger(__name__)

Kind = Literal["item", "event"]
_AFTERMATH = {
    "item": "the bundle's item is served, if it has it; add the item again, or forget the record: "
    "`recsys live list` shows it, with nothing that counts",
    "event": "its user's history counts without it",
}


class UnreadableError(ServingError):
    """A text in Redis that is damaged, or that this release would not have written."""


class Unreadable:
    """Takes note of values that cannot be read.

    Args:
        count: Function called with the kind of each.
    """

    def __init__(self, count: Callable[[Kind], None]) -> None:
        self._count = count
        self._logged: set[Kind] = set()

    def note(self, kind: Kind, error: UnreadableError) -> None:
        """Count a value, and log the first of its kind.

        Args:
            kind: What should be there.
            error: Why it cannot be read, without any user id.
        """
        self._count(kind)
        if kind not in self._logged:
            self._logged.add(kind)
            logger.warning(
                "a live %s in Redis cannot be read (%s); %s. recsys_unreadable_total counts them",
                kind,
                error,
                _AFTERMATH[kind],
            )
