"""What a bundle keeps to tell the product on a photo, as values and as files."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from recsys.identification.calibration import Calibrated, Calibration
from recsys.identification.evidence import Gallery
from recsys.identification.groups import OperatingPoint
from recsys.identification.nearest import NearestCalibration
from vision.test_time import Views


@dataclass(frozen=True)
class Identification:
    """What tells the product on a photo.

    Args:
        gallery: Pictures and labelled photos in the item space.
        calibration: From what they say to probabilities.
        head: Target of the vision tower whose classes are products, None if there is none.
        views: How photos are looked at.
    """

    gallery: Gallery
    calibration: Calibrated
    head: str | None = None
    views: Views = "one"


def describe(identification: Identification) -> dict[str, Any]:
    """Return all but the gallery as JSON values."""
    assert isinstance(identification.calibration, Calibration), "no other kind is fitted"
    return {
        "head": identification.head,
        "views": identification.views,
        "calibration": asdict(identification.calibration),
    }


def restore(gallery: Mapping[str, Tensor], description: Mapping[str, Any]) -> Identification:
    """Return the identification of a gallery's tensors and of what ``describe`` returned."""
    fields = dict(description["calibration"])
    tuples = {name: tuple(fields[name]) for name in ("weights", "pivots")}
    points = {name: OperatingPoint(**fields[name]) for name in ("known", "answers")}
    return Identification(
        gallery=Gallery(**gallery),
        calibration=Calibration(**{**fields, **tuples, **points}),
        head=description["head"],
        views=description["views"],
    )


def restore_prototypes(
    tensors: Mapping[str, Tensor], calibration: Mapping[str, Any]
) -> Identification:
    """Return the identification of a bundle that kept one prototype of each product."""
    prototypes, rows = tensors["prototypes"], tensors["rows"]
    known_weights = tuple(calibration["known_weights"])
    return Identification(
        Gallery(prototypes[:0], rows[:0], prototypes, rows, head_rows=rows[:0]),
        NearestCalibration(**{**calibration, "known_weights": known_weights}),
    )
