"""The contract of every baseline, and the checks that all of them share."""

from typing import Protocol, Self, TypeVar

from recsys.data.arrays import Bools, Floats, Ints
from recsys.data.interactions import Interactions
from recsys.errors import LeakageError, UnknownUserError

_State = TypeVar("_State")


class Baseline(Protocol):
    """A recommender that learns from events alone.

    Events of all kinds count alike, so pass ``fit`` the kinds that matter
    (``Interactions.of_kinds``).
    """

    @property
    def name(self) -> str:
        """Name of the baseline in tables."""

    def fit(
        self, interactions: Interactions, *, now_us: int, held_out: Bools | None = None
    ) -> Self:
        """Learn from the events and return itself.

        Args:
            interactions: Events before ``now_us``.
            now_us: Moment of the later requests, microseconds UTC.
            held_out: Users from whom nothing is learned, bool (U,); their events are histories to
                score by. None learns from all.

        Raises:
            LeakageError: If an event is at or after ``now_us``.
        """

    def scores(self, user_rows: Ints) -> Floats:
        """Return a score for every item of the catalogue, (B, N); higher is better.

        Items that the user already has are scored too; callers may leave them out.

        Args:
            user_rows: Rows of users in the events passed to ``fit`` (B,).

        Raises:
            RuntimeError: If the baseline is not fitted.
            UnknownUserError: If a row is outside [0, U).
        """


def require_past(interactions: Interactions, now_us: int) -> None:
    """Check that every event is before ``now_us``.

    Raises:
        LeakageError: If an event is at or after ``now_us``.
    """
    late = int((interactions.timestamps_us >= now_us).sum())
    if late:
        raise LeakageError(
            f"interactions must be before now_us = {now_us}, got {late} events at or after it; "
            f"use interactions.before(now_us)"
        )


def require_fitted(state: _State | None, name: str) -> _State:
    """Return the fitted state.

    Raises:
        RuntimeError: If the state is None.
    """
    if state is None:
        raise RuntimeError(f"{name} must be fitted before it scores; call fit(interactions, ...)")
    return state


def require_known(user_rows: Ints, n_users: int) -> None:
    """Check that every row is that of a user the model was fitted on.

    Raises:
        UnknownUserError: If a row is outside [0, n_users).
    """
    unknown = user_rows[(user_rows < 0) | (user_rows >= n_users)]
    if len(unknown):
        raise UnknownUserError(
            f"user_rows must be between 0 and {n_users - 1} (users fitted on), "
            f"got {unknown[:3].tolist()}"
        )
