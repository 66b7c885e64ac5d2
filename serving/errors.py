"""The errors that serving adds to those of recsys.

RecsysError
└── ServingError
    ├── StateError            the state folder or the embedded Redis cannot be used
    ├── UnavailableError      Redis or the service cannot be reached now
    ├── OverloadedError       a queue is full; the caller should slow down
    ├── UnauthenticatedError  the token is missing or wrong
    ├── ForbiddenError        the token does not have the role that the call needs
    ├── ClosedError           the client was closed, or belongs to another process
    ├── DeadlineError         no answer came within the caller's time limit
    └── InternalError         a defect of the service; its log has the request id
"""

from recsys.errors import RecsysError

RETRY_AFTER_MS = 250  # about the time in which a full queue of recommendations is worked off


class ServingError(RecsysError):
    """Root of the errors that serving adds."""


class StateError(ServingError):
    """The state folder or the embedded Redis cannot be used."""


class UnavailableError(ServingError):
    """Redis or the service cannot be reached now."""


class OverloadedError(ServingError):
    """A queue is full; the caller should slow down.

    Args:
        message: Message for the caller.
        retry_after_ms: Time after which to call again, in milliseconds.
    """

    def __init__(self, message: str = "", *, retry_after_ms: int = RETRY_AFTER_MS) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class UnauthenticatedError(ServingError):
    """The token is missing or wrong."""


class ForbiddenError(ServingError):
    """The token does not have the role that the call needs."""


class ClosedError(ServingError):
    """The client was closed, or belongs to another process."""


class DeadlineError(ServingError):
    """No answer came within the caller's time limit."""


class InternalError(ServingError):
    """A defect of the service; its log has the request id."""
