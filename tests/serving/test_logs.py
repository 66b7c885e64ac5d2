import json
import logging
import sys
from collections.abc import Iterator

import pytest

from serving.logs import Call, JsonLines, configure, current_call


@pytest.fixture
def root() -> Iterator[logging.Handler]:
    """Yield a handler of the root logger; what is set meanwhile is undone."""
    handler = logging.StreamHandler()
    logging.getLogger().addHandler(handler)
    level = logging.getLogger("serving").level
    yield handler
    logging.getLogger().removeHandler(handler)
    logging.getLogger("serving").setLevel(level)


def record(message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("serving.x", logging.INFO, "x.py", 1, message, args, None)


def test_a_line_is_one_json_object_with_the_call_that_it_is_about() -> None:
    plain = json.loads(JsonLines().format(record("two\nlines of %s", "text")))
    assert plain["message"] == "two\nlines of text"
    assert (plain["level"], plain["logger"]) == ("INFO", "serving.x")
    assert "request_id" not in plain

    token = current_call.set(Call("r1", "Rank", "shop", "0123"))
    try:
        line = JsonLines().format(record("x"))
    finally:
        current_call.reset(token)
    said = json.loads(line)
    assert "\n" not in line
    wanted = {"request_id": "r1", "method": "Rank", "client": "shop", "bundle_version": "0123"}
    assert said | wanted == said


def test_an_error_keeps_its_traceback() -> None:
    try:
        raise KeyError("lost")
    except KeyError:
        failed = record("failed")
        failed.exc_info = sys.exc_info()

    assert "KeyError: 'lost'" in json.loads(JsonLines().format(failed))["traceback"]


def test_the_format_and_the_level_are_set_where_a_program_asks(root: logging.Handler) -> None:
    configure("text", "warning")
    assert not isinstance(root.formatter, JsonLines)
    assert not logging.getLogger("serving.rpc").isEnabledFor(logging.INFO)

    configure("json", "info")
    assert isinstance(root.formatter, JsonLines)
    assert logging.getLogger("serving.rpc").isEnabledFor(logging.INFO)
