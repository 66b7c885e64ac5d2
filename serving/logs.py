"""The log of a service: in lines for people or in JSON, with the call that each line is about."""

import json
import logging
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["text", "json"]


@dataclass
class Call:
    """What the log says of the call that is being answered.

    Args:
        request_id: Name of the call, from the client's ``x-request-id`` or made here.
        method: Name of the method.
        client: Name of the token; empty where the service asks for none.
        bundle_version: Bundle that answers; empty before it is chosen.
    """

    request_id: str
    method: str
    client: str
    bundle_version: str = ""


current_call: ContextVar[Call | None] = ContextVar("current_call", default=None)


class JsonLines(logging.Formatter):
    """Writes each record as one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        call = current_call.get()
        if call is not None:
            line |= {name: value for name, value in vars(call).items() if value}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(log_format: LogFormat, level: str) -> None:
    """Set how a process that serves writes its log; for programs, which own their log.

    Args:
        log_format: "json" for one JSON object a line, "text" to leave the lines as they are.
        level: Lowest level of the service's own lines, such as "info".
    """
    logging.getLogger("serving").setLevel(level.upper())
    if log_format == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonLines())
