"""Write a vision report as one self-contained page for people and one JSON file for programs."""

from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import TypeAdapter, ValidationError

from vision.errors import InvalidArgumentError
from vision.report.metrics import PATH_SEPARATOR
from vision.report.results import TargetResult, TowerReport

HTML_NAME = "vision.html"
JSON_NAME = "vision.json"

# Squares of more classes than this are too small to point at.
MAX_HEAT_MAP_CLASSES = 100


def write_report(report: TowerReport, folder: Path, *, before: TowerReport | None = None) -> Path:
    """Write ``vision.html`` and ``vision.json`` into the folder and return the page's path.

    The page loads nothing from anywhere: styles, plots and pictures are inside it.

    Args:
        report: What to say.
        folder: Made if it is not there.
        before: An evaluation on the same pictures before fine-tuning, shown beside this one on the
            page; it is not in the file.

    Raises:
        InvalidArgumentError: If the earlier evaluation has none of the targets.
    """
    if before is not None and not set(before.targets) & set(report.targets):
        raise InvalidArgumentError(
            f"before must have a target of the report ({', '.join(report.targets)}), "
            f"got {', '.join(before.targets)}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / HTML_NAME
    page.write_text(_render(report, before), encoding="utf-8")
    (folder / JSON_NAME).write_bytes(TypeAdapter(TowerReport).dump_json(report, indent=2) + b"\n")
    return page


def read_report(folder: Path) -> TowerReport:
    """Return the report whose ``vision.json`` is in the folder, equal to the one written.

    Raises:
        InvalidArgumentError: If there is none, or it is damaged or of another format.
    """
    path = folder / JSON_NAME
    try:
        return TypeAdapter(TowerReport).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InvalidArgumentError(
            f"{path} must be a report that write_report wrote: {error}"
        ) from error


class HeatCell(NamedTuple):
    """One square of a heat map."""

    row: int
    column: int
    share: float  # of the row's pictures
    text: str


class HeatMap(NamedTuple):
    """A confusion matrix as it is drawn: only classes that were there or predicted."""

    labels: list[str]  # last parts of the names, shortened
    cells: list[HeatCell]


def heat_map(target: TargetResult) -> HeatMap | None:
    """Return the target's confusion matrix in its own order of classes; None where too large."""
    met = {cell.label for cell in target.confusion} | {cell.predicted for cell in target.confusion}
    if len(met) > MAX_HEAT_MAP_CLASSES:
        return None
    positions = {number: position for position, number in enumerate(sorted(met))}
    support = {result.name: result.support for result in target.classes}
    cells = []
    for label, predicted, count in ((c.label, c.predicted, c.count) for c in target.confusion):
        name, given = target.names[label], target.names[predicted]
        text = f"{name}, given {given}: {count} of {support[name]}"
        cells.append(HeatCell(positions[label], positions[predicted], count / support[name], text))
    leaves = (target.names[number].rpartition(PATH_SEPARATOR)[2] for number in positions)
    labels = [leaf if len(leaf) <= 26 else leaf[:25] + "…" for leaf in leaves]
    return HeatMap(labels, cells)


def _render(report: TowerReport, before: TowerReport | None) -> str:
    # Names of classes and files are the shop's, so everything is escaped.
    environment = Environment(
        loader=PackageLoader("vision.report", "."),
        autoescape=True,
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
    environment.filters["f1_by_class"] = lambda target: {one.name: one.f1 for one in target.classes}
    template = environment.get_template("page.html.j2")
    return template.render(report=report, before=before)
