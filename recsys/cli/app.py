"""Put the commands together and show expected errors as one line."""

import logging
import sys
import tempfile
import traceback

import typer
from rich.console import Console
from rich.markup import escape

from recsys.cli import (
    annotation,
    demo,
    duplicates,
    embedding,
    live,
    queries,
    review,
    service,
    tables,
    text,
    training,
    vision,
)
from recsys.errors import RecsysError
from text.errors import TextError
from vision.errors import VisionError

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
app.command("evaluate")(training.evaluate)
app.command("recommend")(queries.recommend)
app.command("similar")(queries.similar)
app.command("search")(queries.search)
app.command("identify")(queries.identify)
app.command("embed")(embedding.embed)
app.command("duplicates")(duplicates.duplicates)
app.command("annotate")(annotation.annotate)
app.command("variants")(annotation.variants)
app.command("serve")(service.serve)
app.add_typer(live.build_app(), name="live")
app.add_typer(review.build_app(), name="review")
app.add_typer(text.build_app(), name="text")
app.add_typer(vision.build_app(), name="vision")


# An OSError is often a full disk or a missing permission, so its line names those first.
DEFECT = "this is a defect of vitrine-recsys, not of your input; please report the lines above"
SYSTEM = "the operating system refused; if disk, permissions and network are fine, it is a defect"


def main() -> None:
    """Run the command line.

    An expected error is shown as one line on stderr, with exit status 2. Any other error keeps its
    traceback, is followed by a line that says whether it is a defect, and has exit status 1.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except (RecsysError, VisionError, TextError) as error:
        _say("error", str(error))
        sys.exit(2)
    except Exception as error:
        if isinstance(error, FileNotFoundError) and not _has_temporary_folder():
            _say("error", f"{error.strerror}; set TMPDIR to a folder that this user can write")
            sys.exit(2)
        traceback.print_exc()
        _say("unexpected error", SYSTEM if isinstance(error, OSError) else DEFECT)
        sys.exit(1)


def _has_temporary_folder() -> bool:
    """Return whether there is a folder for temporary files; libraries need it when imported."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        return False
    return True


def _say(kind: str, message: str) -> None:
    line = f"[bold red]{kind}:[/] {escape(message)}"
    Console(stderr=True).print(line, soft_wrap=True, highlight=False)
