"""Tokens with roles: who calls, and what they may do."""

import hashlib
import hmac
import logging
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from recsys.errors import ConfigError
from serving.auth import read_bearer
from serving.errors import ForbiddenError, UnauthenticatedError

logger = logging.getLogger(__name__)

Role = Literal["read", "write", "admin"]
_RANKS: dict[Role, int] = {"read": 0, "write": 1, "admin": 2}
_SERVICE = "/recsys.v1.Recommender/"
_REFLECTION = "/grpc.reflection."
# The role that each method of the Recommender needs. A method without an entry needs admin.
ROLES: dict[str, Role] = {
    **dict.fromkeys(
        ("Recommend", "Rank", "SimilarItems", "Search", "Identify", "Annotate"), "read"
    ),
    **dict.fromkeys(("GetItems", "ListLiveItems"), "read"),
    **dict.fromkeys(("RecordEvents", "RecordEventStream"), "write"),
    **dict.fromkeys(("UpsertItems", "DeleteItems", "ForgetLiveItems"), "write"),
}
_LOOK_S = 1.0  # between two looks whether the file has changed


class Caller(NamedTuple):
    """Who makes a call.

    Args:
        name: Name of the token; empty where the service asks for none.
        role: What the token permits; each role permits what the one before it does, too.
    """

    name: str
    role: Role


class _Token(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Role
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def role_of(method: str) -> Role:
    """Return the role that a method needs, by its full name such as /recsys.v1.Recommender/Rank."""
    if method.startswith(_REFLECTION):
        return "read"
    return ROLES.get(method.removeprefix(_SERVICE), "admin")


def read_tokens(path: Path) -> dict[str, Caller]:
    """Return the callers by the SHA-256 of their tokens, from a TOML file.

    Raises:
        ConfigError: If the file cannot be read, has no token, or an entry is wrong.
    """
    try:
        entries = _ENTRIES.validate_python(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise ConfigError(f"tokens {path} must be a readable file: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"tokens {path} must be a TOML file: {error}") from error
    except ValidationError as error:
        # Without what the file has: it may be a token that was written in place of its hash.
        wrong = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()
        )
        raise ConfigError(
            f"tokens {path} must have a role (read, write or admin) and a sha256 for each name, "
            f"but: {wrong}"
        ) from None
    callers = {entry.sha256: Caller(name, entry.role) for name, entry in entries.items()}
    if not callers or len(callers) < len(entries):
        raise ConfigError(f"tokens {path} must have tokens, each one once, got {len(entries)}")
    return callers


class Tokens:
    """Checks the tokens of calls, and reads their file again when it changes.

    Args:
        token: Token with every role; None if there is none.
        file: File of tokens with roles; None if there is none. Without both, no token is needed.
        clock: Function that returns a time in seconds.

    Raises:
        ConfigError: If the file cannot be used. Later, the tokens stay as they were, and the log
            has the reason.
    """

    def __init__(
        self,
        token: str | None = None,
        file: Path | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own = {} if token is None else {_digest(token): Caller("token", "admin")}
        self._file = file
        self._clock = clock
        self._said = ""
        self._mark: tuple[int, ...] = ()
        self._callers: Mapping[str, Caller] = self._own
        self._look_at = 0.0
        if file is not None:
            self._read(file)

    def check(self, metadata: Iterable[tuple[str, str | bytes]], role: Role) -> Caller:
        """Return who makes a call.

        Args:
            metadata: Metadata of the call.
            role: Role that the call needs.

        Raises:
            UnauthenticatedError: If the token is missing or wrong.
            ForbiddenError: If the token does not have the role.
        """
        if not self._own and self._file is None:
            return Caller("", "admin")
        sent = _digest(read_bearer(metadata))
        self._look()
        found = None
        for digest, caller in self._callers.items():
            # All are compared, each in full: the time taken shows nothing of them.
            if hmac.compare_digest(sent, digest):
                found = caller
        if found is None:
            raise UnauthenticatedError("token is not one that this service knows")
        if _RANKS[found.role] < _RANKS[role]:
            raise ForbiddenError(
                f"token {found.name!r} must have the role {role} for this call, it has {found.role}"
            )
        return found

    def _look(self) -> None:
        if self._file is None or self._clock() < self._look_at:
            return
        self._look_at = self._clock() + _LOOK_S
        try:
            self._read(self._file)
            self._said = ""
        except ConfigError as error:
            if str(error) != self._said:
                logger.error("the tokens stay as they were: %s", error)
            self._said = str(error)

    def _read(self, file: Path) -> None:
        mark = _mark(file)
        if mark != self._mark:
            self._callers = {**read_tokens(file), **self._own}
            self._mark = mark
            logger.info("%d tokens are known, with those of %s", len(self._callers), file)


def _mark(file: Path) -> tuple[int, ...]:
    """Return what changes when a file does."""
    try:
        found = file.stat()
    except OSError as error:
        raise ConfigError(f"tokens {file} must be a readable file: {error.strerror}") from error
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


_ENTRIES = TypeAdapter(dict[str, _Token])
