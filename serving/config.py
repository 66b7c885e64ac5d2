"""Settings of a service."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from recsys.catalogue.vectors import EXACT_UP_TO
from recsys.errors import ConfigError
from serving.addresses import read_host
from serving.auth import check_binding, read_token
from serving.environment import PREFIX, read_environment
from serving.logs import LogFormat

MIB = 2**20
EMBEDDED = "embedded"  # a Redis of the service's own
_SECRET = frozenset({"token", "redis"})  # settings whose values no message shows


class ServiceConfig(BaseModel):
    """Settings of one service process."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )

    host: str = Field("127.0.0.1", description="Address that the service listens on.")
    port: int = Field(
        50051, ge=0, le=65535, description="Port that the service listens on; 0 takes a free one."
    )
    token: SecretStr | None = Field(None, description="Token that permits every call.")
    tokens: Path | None = Field(
        None, description="TOML file of tokens with roles; it is read again when it changes."
    )
    calls_per_s: float | None = Field(
        None, gt=0, le=10**6, description="Calls a second of one client; unlimited if unset."
    )
    log_format: LogFormat = Field("text", description="Lines of the log: text, or json.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level of the service's own lines in the log."
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file with the certificate chain for TLS."
    )
    tls_key: Path | None = Field(None, description="PEM file with the private key for TLS.")
    tls_clients: Path | None = Field(
        None,
        description="PEM file with the certificates that sign those of clients; then clients "
        "without one are refused.",
    )
    allow_insecure: bool = Field(
        False, description="Listen beyond loopback without TLS and token, on a trusted network."
    )
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Loopback port of the Prometheus endpoint; off if unset."
    )

    watch: bool = Field(
        False, description="Serve each bundle that becomes the latest of the folder."
    )

    redis: str = Field(
        "embedded",
        description="Redis to use: 'embedded', or a URL with redis://, rediss://, unix:// or "
        "redis+cluster://.",
    )
    state: Path = Field(
        Path("~/.local/state/recsys"),
        description="Folder with the data of the embedded Redis; it outlives bundles. Its default "
        "is in $XDG_STATE_HOME if that is set.",
    )
    namespace: str = Field(
        "recsys", pattern=r"^[\w.-]+$", description="First part of every Redis key."
    )
    redis_timeout_s: float = Field(
        0.5, gt=0, le=3600, description="Longest wait for a Redis command."
    )
    redis_bytes: ByteSize = Field(
        ByteSize(1024 * MIB),
        ge=0,
        le=2**62,
        description="Memory limit of the embedded Redis, 0 for none; cached embeddings are "
        "evicted first. Redis needs about 1 MiB for itself.",
    )

    device: str = Field("cpu", description="Torch device of the networks and the item table.")
    device_table_bytes: ByteSize = Field(
        ByteSize(64 * MIB),
        ge=0,
        le=2**40,
        description="Memory for the embeddings of recent queries and items on the device.",
    )
    device_table_type: Literal["float32", "float16", "int8"] = Field(
        "float32",
        description="Type of these values; the smaller ones hold more rows, less exactly.",
    )
    exact_up_to: int = Field(
        EXACT_UP_TO,
        ge=0,
        description="Largest catalogue that is searched exactly; on the CPU, a larger one gets an "
        "approximate index when the service starts.",
    )
    embedding_ttl_s: int = Field(
        7 * 86400,
        ge=1,
        le=10**9,
        description="Time after which an unused embedding in Redis expires.",
    )
    history_events: int = Field(
        500, ge=1, le=10**6, description="Number of latest live events kept for each user."
    )
    history_ttl_s: int = Field(
        180 * 86400,
        ge=1,
        le=10**9,
        description="Time after a user's last live event when all of them expire. A full Redis may "
        "evict them earlier; the event log has them for the next training.",
    )
    picture_bytes: ByteSize = Field(
        ByteSize(256 * MIB),
        ge=0,
        le=2**62,
        description="Largest size of all pictures that callers sent together, so that they leave "
        "room for events; in an embedded Redis at most half of redis_bytes.",
    )
    event_log_events: int = Field(
        1_000_000,
        ge=1_000,
        le=10**9,
        description="About how many events the log for the next training keeps, the last ones; "
        "export them before they go.",
    )

    max_message_bytes: ByteSize = Field(
        ByteSize(16 * MIB), ge=1024, le=2**31 - 1, description="Largest request message, in bytes."
    )
    max_image_bytes: ByteSize = Field(
        ByteSize(8 * MIB), ge=1, description="Largest image in a request, in bytes."
    )
    max_batch: int = Field(
        32, ge=1, description="Largest number of requests that are computed together."
    )
    batch_wait_ms: float = Field(
        2.0,
        ge=0,
        le=60_000,
        description="Longest wait of a query for others that share its run of the towers; "
        "recommendations do not wait for others.",
    )
    max_queue: int = Field(
        256, ge=1, description="Queue length; further requests get RESOURCE_EXHAUSTED."
    )
    notice_s: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="Time between NOT_SERVING and the end of new calls, for load balancers.",
    )
    drain_s: float = Field(
        10.0, ge=0, le=86_400, description="Longest wait of a graceful stop for calls in flight."
    )

    @property
    def picture_budget(self) -> int:
        """Largest size of all pictures that callers sent, in bytes."""
        is_bounded = self.redis == EMBEDDED and self.redis_bytes
        return min(self.picture_bytes, self.redis_bytes // 2) if is_bounded else self.picture_bytes

    @field_validator("*", mode="before")
    @classmethod
    def _strip(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        # An empty variable is a value that was not filled in, not a wish for the default.
        if not value.strip():
            raise ValueError("must not be empty or blank; set a value, or leave it unset")
        return value.strip()

    @field_validator("host")
    @classmethod
    def _read_host(cls, host: str) -> str:
        return read_host(host)

    @field_validator("token")
    @classmethod
    def _read_token(cls, token: SecretStr | None) -> SecretStr | None:
        return None if token is None else SecretStr(read_token(token.get_secret_value()))

    @field_validator("tls_certificate", "tls_key", "tls_clients", "tokens")
    @classmethod
    def _from_home(cls, path: Path | None) -> Path | None:
        return None if path is None else Path(os.path.expanduser(path))

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key must be set together")
        if self.tls_clients is not None and self.tls_certificate is None:
            raise ValueError("tls_clients needs tls_certificate and tls_key")
        if self.metrics_port == self.port != 0:
            raise ValueError(f"metrics_port must be another port than port, got {self.port} twice")
        if self.max_image_bytes > self.max_message_bytes:
            raise ValueError(
                f"max_message_bytes must be at least max_image_bytes, {self.max_image_bytes}, for "
                f"an image comes in a message; got {self.max_message_bytes}"
            )
        return self


def build_config(environment: Mapping[str, str], **settings: Any) -> ServiceConfig:
    """Return the configuration from settings, then environment, then defaults.

    Args:
        environment: Environment variables, as in ``os.environ``; ``RECSYS_PORT`` sets ``port``.
        **settings: Fields of ``ServiceConfig``; None counts as not given.

    Raises:
        ConfigError: If a setting cannot be used; the message lists all problems.
    """
    values: dict[str, Any] = dict(read_environment(environment))
    values.update({name: value for name, value in settings.items() if value is not None})
    try:
        config = ServiceConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from error
    check_binding(
        config.host,
        has_token=config.token is not None or config.tokens is not None,
        has_tls=config.tls_certificate is not None,
        allow_insecure=config.allow_insecure,
    )
    return config


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        name = ".".join(str(part) for part in problem["loc"])
        said = problem["msg"].removeprefix("Value error, ")
        text = f"{name} ({PREFIX}{name.upper()}): {said}"
        if not name:  # of several fields
            text = said
        elif problem["type"] == "extra_forbidden":
            close = difflib.get_close_matches(name, ServiceConfig.model_fields, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            text = f"{name} ({PREFIX}{name.upper()}) is not a setting of the service{hint}"
        elif name not in _SECRET:
            text += f", got {problem['input']!r}"
        lines.append(text)
    return "service configuration: " + "; ".join(lines)
