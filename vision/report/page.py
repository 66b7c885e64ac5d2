"""Writing and reading of vision reports: one HTML page for people, one JSON file for programs."""

from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import TypeAdapter, ValidationError

from vision.errors import InvalidArgumentError
from vision.files import whole_file
from vision.hierarchy import SEPARATOR
from vision.printable import shown_on_page
from vision.report.results import TargetResult, TowerReport

HTML_NAME = "vision.html"
JSON_NAME = "vision.json"

# With more classes the squares of a heat map are too small to point at.
MAX_HEAT_MAP_CLASSES = 100


def write_report(report: TowerReport, folder: Path, *, before: TowerReport | None = None) -> Path:
    """Write ``vision.html`` and ``vision.json`` into the folder and return the path of the page.

    The page is self-contained: styles, plots and pictures are inside it.

    Args:
        report: Report to write.
        folder: Folder for the two files, which is created if missing.
        before: Report on the same pictures before fine-tuning. The page shows it beside the first
            one, and the JSON file leaves it out.

    Raises:
        InvalidArgumentError: If the two reports have no target in common.
    """
    if before is not None and not set(before.targets) & set(report.targets):
        raise InvalidArgumentError(
            f"before must share a target with the report ({', '.join(report.targets)}), "
            f"got {', '.join(before.targets)}"
        )
    page = folder / HTML_NAME
    with whole_file(page) as scratch:
        scratch.write_text(_render(report, before), encoding="utf-8")
    with whole_file(folder / JSON_NAME) as scratch:
        scratch.write_bytes(TypeAdapter(TowerReport).dump_json(report, indent=2) + b"\n")
    return page


def read_report(folder: Path) -> TowerReport:
    """Return the report in the folder's ``vision.json``, equal to the one that was written.

    Raises:
        InvalidArgumentError: If the file is missing, damaged or of another format.
    """
    path = folder / JSON_NAME
    try:
        return TypeAdapter(TowerReport).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InvalidArgumentError(
            f"{path} must be a report written by write_report: {error}"
        ) from error


class HeatCell(NamedTuple):
    """One square of a heat map."""

    row: int
    column: int
    share: float  # share of the pictures in the row
    text: str


class HeatMap(NamedTuple):
    """A confusion matrix for drawing, with only the classes that occur as label or prediction."""

    labels: list[str]  # last parts of the class names, shortened
    cells: list[HeatCell]


def heat_map(target: TargetResult) -> HeatMap | None:
    """Return the confusion matrix of a target for drawing, or None if it has too many classes."""
    used = {cell.label for cell in target.confusion} | {cell.predicted for cell in target.confusion}
    if len(used) > MAX_HEAT_MAP_CLASSES:
        return None
    positions = {number: position for position, number in enumerate(sorted(used))}
    support = {result.name: result.support for result in target.classes}
    cells = []
    for label, predicted, count in ((c.label, c.predicted, c.count) for c in target.confusion):
        name, other = target.names[label], target.names[predicted]
        text = f"{name}, predicted as {other}: {count} of {support[name]}"
        cells.append(HeatCell(positions[label], positions[predicted], count / support[name], text))
    leaves = (target.names[number].rpartition(SEPARATOR)[2] for number in positions)
    labels = [leaf if len(leaf) <= 26 else leaf[:25] + "…" for leaf in leaves]
    return HeatMap(labels, cells)


def _render(report: TowerReport, before: TowerReport | None) -> str:
    # Names of classes and files come from the shop, so everything is escaped.
    environment = Environment(
        loader=PackageLoader("vision.report", "."),
        autoescape=True,
        finalize=shown_on_page,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}"
    environment.filters["points"] = lambda value: f"{100 * value:+.1f}".replace("-", "−")
    environment.filters["count"] = lambda value: f"{value:,}"
    environment.filters["px"] = lambda value: f"{value:.1f}"
    environment.filters["heat_map"] = heat_map
    environment.filters["by_grouping"] = lambda slices: [
        (grouping, list(groups)) for grouping, groups in groupby(slices, attrgetter("grouping"))
    ]
    environment.filters["f1_by_class"] = lambda target: {c.name: c.f1 for c in target.classes}
    template = environment.get_template("page.html.j2")
    return template.render(report=report, before=before)
