"""Write a report as one self-contained HTML page for people and one JSON file for programs."""

import base64
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined

from recsys.data.files import whole_file
from recsys.evaluation.bootstrap import Estimate
from recsys.evaluation.results import Report, headline
from recsys.evaluation.significance import ALPHA, PairedTest
from vision.images import ImageError, decode
from vision.printable import shown_on_page

HTML_NAME = "report.html"
JSON_NAME = "metrics.json"

_THUMBNAIL_SIDE = 160  # shown at half of it, so that it is sharp on dense screens
_METRIC_NAMES = {
    "ndcg": "NDCG",
    "recall": "Recall",
    "hit_rate": "Hit rate",
    "precision": "Precision",
    "mrr": "MRR",
    "average_precision": "AP",
}
_SCOPES = {
    "all": "Everything in the catalogue at the split that was taken after it",
    "new": "Only what the user had not taken before; earlier items are out of the ranking",
    "cold": "Only items without any event before the split",
}


def write_report(
    report: Report,
    folder: Path,
    *,
    picture_budget_bytes: int = 2_000_000,
) -> Path:
    """Write ``report.html`` and ``metrics.json`` into the folder and return the page's path.

    The page loads nothing from anywhere: styles, bars and pictures are inside it.

    Args:
        report: Report to write.
        folder: Folder for the two files, created if missing.
        picture_budget_bytes: Pictures are embedded up to this size in total; the page says how
            many are missing, and of how many the file could not be read.
    """
    page = folder / HTML_NAME
    text = json.dumps(metrics(report), indent=2, ensure_ascii=False, allow_nan=False)
    with whole_file(page) as scratch:
        scratch.write_text(_page(report, picture_budget_bytes), encoding="utf-8")
    with whole_file(folder / JSON_NAME) as scratch:
        scratch.write_text(text + "\n", encoding="utf-8")
    return page


def metrics(report: Report) -> dict[str, Any]:
    """Return the report as JSON values, without single users; an estimate has mean, low, high."""
    values = _plain(replace(report, gallery=(), failures=()))
    del values["gallery"], values["failures"]
    return {"format": 1, **values}


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate | PairedTest):
        return value._asdict()
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item) for item in value]
    return value


def _page(report: Report, budget: int) -> str:
    # Titles come from the shop's tables, so everything is escaped.
    environment = Environment(
        autoescape=True,
        finalize=shown_on_page,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["score"] = _score
    environment.filters["gain"] = lambda value: ("−" if value < 0 else "+") + _score(abs(value))
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}"
    environment.filters["count"] = lambda value: f"{value:,}"
    environment.filters["duration"] = _duration
    environment.filters["metric"] = _metric_name
    template = files("recsys.evaluation").joinpath("page.html.j2").read_text(encoding="utf-8")
    shown = headline(report.rankings[0].systems[0].metrics) if report.rankings else ()
    return environment.from_string(template).render(
        report=report,
        headline=shown,
        scopes=_SCOPES,
        alpha=ALPHA,
        pictures=_pictures(report, budget),
    )


def _score(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _metric_name(metric: str) -> str:
    name, _, k = metric.partition("@")
    return f"{_METRIC_NAMES.get(name, name)}@{k}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


class _Pictures(NamedTuple):
    sources: dict[bytes, str]  # data URI of each picture file's thumbnail
    n_left_out: int  # beyond the budget
    n_unreadable: int


def _pictures(report: Report, budget: int) -> _Pictures:
    """Return the thumbnails of all items on the page, which has each as often as it is shown."""
    rows = [row for user in report.gallery for row in (user.history, user.recommended)]
    for one in report.failures:
        rows += [one.history, one.right, one.our_list, one.their_list]
    items = (item for row in rows for item in row)
    shown = Counter(item.picture for item in items if item.picture is not None)
    sources: dict[bytes, str] = {}
    left_out, unreadable = 0, 0
    for data, times in shown.items():
        try:
            thumbnail = _thumbnail(data)
        except ImageError:
            unreadable += 1
            continue
        if len(thumbnail) * times > budget:
            left_out += 1
            continue
        budget -= len(thumbnail) * times
        sources[data] = thumbnail
    return _Pictures(sources, left_out, unreadable)


def _thumbnail(data: bytes) -> str:
    picture = decode(data, min_side=_THUMBNAIL_SIDE)
    picture.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
