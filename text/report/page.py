"""Write a text report as one self-contained page and one JSON file, and read the file again."""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import TypeAdapter, ValidationError

from text.errors import InvalidArgumentError
from text.files import whole_file
from text.printable import shown_on_page
from text.report.results import TextReport

HTML_NAME = "text.html"
JSON_NAME = "text.json"


def write_report(report: TextReport, folder: Path, *, before: TextReport | None = None) -> Path:
    """Write ``text.html`` and ``text.json`` into the folder and return the page's path.

    The page needs no network and no other file.

    Args:
        report: Results to write.
        folder: Folder to write to, created if missing.
        before: Results on the same texts before fine-tuning, which the page shows beside the
            report. The JSON file leaves them out.

    Raises:
        InvalidArgumentError: If ``before`` has another number of texts than ``report``.
    """
    if before is not None and before.n_texts != report.n_texts:
        raise InvalidArgumentError(
            f"before must have the same {report.n_texts} texts as the report, got {before.n_texts}"
        )
    page = folder / HTML_NAME
    with whole_file(page) as scratch:
        scratch.write_text(_render(report, before), encoding="utf-8")
    with whole_file(folder / JSON_NAME) as scratch:
        scratch.write_bytes(TypeAdapter(TextReport).dump_json(report, indent=2) + b"\n")
    return page


def read_report(folder: Path) -> TextReport:
    """Return the report whose ``text.json`` is in the folder, equal to the one written.

    Raises:
        InvalidArgumentError: If the file is missing, damaged or of another format.
    """
    path = folder / JSON_NAME
    try:
        return TypeAdapter(TextReport).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InvalidArgumentError(
            f"{path} must be a report that write_report wrote, but reading it failed: {error}"
        ) from error


def _render(report: TextReport, before: TextReport | None) -> str:
    # Names of targets come from the shop's data, so everything is escaped.
    environment = Environment(
        loader=PackageLoader("text.report", "."),
        autoescape=True,
        finalize=shown_on_page,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}"
    environment.filters["count"] = lambda value: f"{value:,}"
    environment.filters["px"] = lambda value: f"{value:.1f}"
    template = environment.get_template("page.html.j2")
    return template.render(report=report, before=before)
