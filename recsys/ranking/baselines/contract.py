"""What every baseline offers, and the checks that all of them make."""

from typing import Protocol, Self, TypeVar

from recsys.data.arrays import Floats, Ints
from recsys.data.interactions import Interactions
from recsys.errors import LeakageError, UnknownUserError

_State = TypeVar("_State")


class Baseline(Protocol):
    """A recommender that needs nothing but events.

    Events count whatever their kind: give ``fit`` those that matter (``Interactions.of_kinds``).
    """

    @property
    def name(self) -> str:
        """Name in tables."""

    def fit(self, interactions: Interactions, *, now_us: int) -> Self:
        """Learn from the events and return itself.

        Args:
            interactions: Events before ``now_us``.
            now_us: The moment of the later requests, microseconds UTC.

        Raises:
            LeakageError: If an event is at or after ``now_us``.
        """

    def scores(self, user_rows: Ints) -> Floats:
        """Return a score for every item of the catalogue, (B, N); higher is better.

        What the user already has is scored too; leaving it out is the caller's choice.

        Args:
            user_rows: Rows of the events that ``fit`` saw (B,).

        Raises:
            RuntimeError: If not fitted.
            UnknownUserError: If a row is outside [0, U).
        """


def require_past(interactions: Interactions, now_us: int) -> None:
    """Check that every event is before ``now_us``.

    Raises:
        LeakageError: If one is not.
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
        RuntimeError: If there is none.
    """
    if state is None:
        raise RuntimeError(f"{name} must be fitted before it scores; call fit(interactions, ...)")
    return state


def require_known(user_rows: Ints, n_users: int) -> None:
    """Check that every user row was there when the model was fitted.

    Raises:
        UnknownUserError: If one was not.
    """
    unknown = user_rows[(user_rows < 0) | (user_rows >= n_users)]
    if len(unknown):
        raise UnknownUserError(
            f"user_rows must be between 0 and {n_users - 1} (users fitted on), "
            f"got {unknown[:3].tolist()}"
        )
