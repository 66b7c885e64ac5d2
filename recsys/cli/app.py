"""Put the commands together and show expected errors as one line."""

import atexit
import gc
import io
import logging
import sys
import tempfile
import traceback
from typing import Any

import typer

from recsys.cli import (
    admin,
    annotation,
    demo,
    duplicates,
    embedding,
    exports,
    features,
    live,
    queries,
    review,
    service,
    tables,
    text,
    training,
    vision,
    weights,
)
from recsys.cli.options import DashedArguments
from recsys.cli.output import errors
from recsys.errors import RecsysError
from text.errors import TextError
from vision.errors import VisionError
from vision.printable import one_line, printable

app = typer.Typer(
    name="recsys",
    help="Train, bundle, evaluate, query and serve multimodal product recommenders.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.run)
app.command("check")(tables.check)
app.command("import")(tables.import_source)
app.command("train")(training.train)
app.command("refresh")(training.refresh)
app.command("evaluate")(training.evaluate)
app.command("recommend", cls=DashedArguments)(queries.recommend)
app.command("similar", cls=DashedArguments)(queries.similar)
app.command("search", cls=DashedArguments)(queries.search)
app.command("identify")(queries.identify)
app.command("embed")(embedding.embed)
app.command("features")(features.features)
app.command("duplicates")(duplicates.duplicates)
app.command("annotate")(annotation.annotate)
app.add_typer(annotation.build_category_app(), name="category")
app.command("variants")(annotation.variants)
app.command("serve")(service.serve)
app.add_typer(admin.build_app(), name="admin")
app.add_typer(live.build_app(), name="live")
app.add_typer(exports.build_events_app(), name="events")
app.add_typer(exports.build_items_app(), name="items")
app.add_typer(review.build_app(), name="review")
app.add_typer(text.build_app(), name="text")
app.add_typer(vision.build_app(), name="vision")
app.add_typer(weights.build_app(), name="weights")


# An OSError is often a full disk or a missing permission, so its line names those first.
DEFECT = "this is a defect of vitrine-recsys, not of your input; please report the lines above"
SYSTEM = "the operating system refused; if disk, permissions and network are fine, it is a defect"


def main() -> None:
    """Run the command line.

    An expected error is shown as one line on stderr, with exit status 2. Any other error keeps its
    traceback, is followed by a line that says whether it is a defect, and has exit status 1.
    """
    _prepare_streams()
    # At its end, Python would look through all objects of torch and transformers for garbage, again
    # and again: 2 s in which a stopped service seems to hang.
    atexit.register(gc.freeze)
    try:
        app()
    except (RecsysError, VisionError, TextError) as error:
        _say("error", str(error))
        sys.exit(2)
    except Exception as error:
        if isinstance(error, FileNotFoundError) and not _has_temporary_folder():
            _say("error", f"{error.strerror}; set TMPDIR to a folder that this user can write")
            sys.exit(2)
        errors.print(traceback.format_exc(), highlight=False)
        _say("unexpected error", SYSTEM if isinstance(error, OSError) else DEFECT)
        sys.exit(1)


def _has_temporary_folder() -> bool:
    """Return whether there is a folder for temporary files; libraries need it when imported."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        return False
    return True


def _prepare_streams() -> None:
    """Let no character end a command: neither where the terminal has no Unicode, nor in a log."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


class OneLine(logging.Formatter):
    """Writes a message on one line, whatever the names in it hold."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name of the base
        """Return the line of a record."""
        return one_line(super().formatMessage(record))

    def formatException(self, *error: Any) -> str:  # noqa: N802 - the name of the base
        """Return the traceback of an error."""
        return printable(super().formatException(*error))


def _say(kind: str, message: str) -> None:
    errors.print(f"{kind}:", style="bold red", end=" ")
    errors.print(message, highlight=False)
