"""The errors that serving adds to those of recsys.

RecsysError
└── ServingError
    ├── StateError            the state folder or the embedded Redis cannot be used
    ├── UnavailableError      Redis or the service cannot be reached now
    ├── OverloadedError       a queue is full; the caller should slow down
    ├── UnauthenticatedError  the token is missing or wrong
    ├── ClosedError           the client was closed, or belongs to another process
    ├── DeadlineError         no answer came within the caller's time limit
    └── InternalError         a defect of the service; its log has the request id
"""

from recsys.errors import RecsysError


class ServingError(RecsysError):
    """Root of the errors that serving adds."""


class StateError(ServingError):
    """The state folder or the embedded Redis cannot be used."""


class UnavailableError(ServingError):
    """Redis or the service cannot be reached now."""


class OverloadedError(ServingError):
    """A queue is full; the caller should slow down."""


class UnauthenticatedError(ServingError):
    """The token is missing or wrong."""


class ClosedError(ServingError):
    """The client was closed, or belongs to another process."""


class DeadlineError(ServingError):
    """No answer came within the caller's time limit."""


class InternalError(ServingError):
    """A defect of the service; its log has the request id."""
