"""What a bundle keeps for identification, as values and as files; also of older bundles."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from recsys.identification.calibration import Calibrated, Calibration, OperatingPoint
from recsys.identification.evidence import ITEM, PHOTOS, SOURCES, Evidence, Gallery
from vision.test_time import Views
from vision.words import Lines

# Fields of a calibration that bundles keep under another name.
_KEYS = {"named": "answers"}


@dataclass(frozen=True)
class IdentificationPart:
    """The part of a bundle that identifies the product on a photo.

    Args:
        gallery: Pictures and labelled photos in the item space.
        calibration: Calibration of the gallery's evidence.
        head: Target of the vision tower whose classes are products; None without such a target.
        views: Views of each photo to average.
        words: Lines that were read on the shop's pictures, by item id; None if none were read.
        reads_words: Whether words on photos are compared with them and with the shop's texts.
        why_no_words: Why words on photos are not read although they could be; None if they are, or
            were not tried.
    """

    gallery: Gallery
    calibration: Calibrated
    head: str | None = None
    views: Views = "one"
    words: Mapping[str, Lines] | None = None
    reads_words: bool = False
    why_no_words: str | None = None

    def sentence(self) -> str:
        """Return what is promised of the products that are named, and whether words count."""
        promise = self.calibration.sentence()
        if self.reads_words:
            return f"{promise}; words on photos are read"
        if self.why_no_words is not None:
            return f"{promise}; words on photos are not read: {self.why_no_words}"
        return promise


@dataclass(frozen=True)
class NearestCalibration:
    """The calibration of older bundles: a softmax over nearest products, a logistic for "known".

    The similarity of a product is that of its item embedding or of its prototype, whichever is
    closer.

    Args:
        temperature: Temperature of the softmax over the products.
        known_weights: Logistic weights of the best similarity and of its lead over the second.
        known_bias: Logistic bias.
        threshold: Probability from which a photo is said to show a product of the catalogue.
    """

    temperature: float
    known_weights: tuple[float, float]
    known_bias: float
    threshold: float

    @property
    def known(self) -> OperatingPoint:
        """The threshold; its precision and coverage were not kept."""
        return OperatingPoint(self.threshold)

    @property
    def named(self) -> OperatingPoint:
        """A point that nothing passes: the precision of the first candidate was not measured."""
        return OperatingPoint(None)

    def sentence(self) -> str:
        """Return that no product will be named."""
        return "no photo gets a product's name, as this older bundle did not measure its precision"

    def probabilities(self, evidence: Evidence) -> Tensor:
        """Return probabilities of the products and, last, of "not in the catalogue" (B, N + 1)."""
        absent = ~evidence.present[..., [ITEM, PHOTOS]]
        both = evidence.values[..., [ITEM, PHOTOS]].masked_fill(absent, -1.0)
        similarities = both.max(dim=2).values  # (B, N)
        top = similarities.topk(min(2, similarities.shape[1]), dim=1).values
        best, lead = top[:, 0], top[:, 0] - top[:, -1]
        logits = self.known_weights[0] * best + self.known_weights[1] * lead + self.known_bias
        known = torch.sigmoid(logits)[:, None]
        candidates = (similarities / self.temperature).masked_fill(absent.all(dim=2), float("-inf"))
        return torch.cat([known * candidates.softmax(dim=1), 1 - known], dim=1)


def describe(part: IdentificationPart) -> dict[str, Any]:
    """Return everything but the gallery as JSON values."""
    assert isinstance(part.calibration, Calibration), "older kinds are read, never written"
    calibration = {_KEYS.get(name, name): value for name, value in asdict(part.calibration).items()}
    return {
        "head": part.head,
        "views": part.views,
        "calibration": calibration,
        "reads_words": part.reads_words,
        "why_no_words": part.why_no_words,
    }


def write_words(words: Mapping[str, Lines], path: Path) -> None:
    """Write the lines read on the shop's pictures as a table."""
    lines = pl.Series("lines", list(map(list, words.values())), dtype=pl.List(pl.String))
    item_ids = pl.Series("item_id", list(words), dtype=pl.String)
    pl.DataFrame([item_ids, lines]).write_parquet(path)


def read_words(path: Path) -> dict[str, Lines] | None:
    """Return the lines that ``write_words`` wrote; None for a bundle without them."""
    if not path.exists():
        return None
    return {item_id: tuple(lines) for item_id, lines in pl.read_parquet(path, glob=False).rows()}


def restore(
    gallery: Mapping[str, Tensor],
    description: Mapping[str, Any],
    words: Mapping[str, Lines] | None = None,
) -> IdentificationPart:
    """Return the part from its tensors, from what ``describe`` returned, and from its words.

    Sources that did not exist when the bundle was made have no weight.
    """
    fields = dict(description["calibration"])
    fields |= {name: fields.pop(key) for name, key in _KEYS.items()}
    newer = (0.0,) * (len(SOURCES) - len(fields["weights"]))
    tuples = {name: (*fields[name], *newer) for name in ("weights", "pivots")}
    points = {name: OperatingPoint(**fields[name]) for name in ("known", "named")}
    return IdentificationPart(
        gallery=Gallery(**gallery),
        calibration=Calibration(**{**fields, **tuples, **points}),
        head=description["head"],
        views=description["views"],
        words=words,
        # Older bundles keep words only if they read those on photos.
        reads_words=description.get("reads_words", words is not None),
        why_no_words=description.get("why_no_words"),  # older bundles lack it
    )


def restore_prototypes(
    tensors: Mapping[str, Tensor], calibration: Mapping[str, Any]
) -> IdentificationPart:
    """Return the part of an older bundle, which kept one prototype of each product.

    Args:
        tensors: ``prototypes`` (P, D) and the item row of each, ``rows`` (P,).
        calibration: Fields of ``NearestCalibration`` as JSON values.
    """
    prototypes, rows = tensors["prototypes"], tensors["rows"]
    known_weights = tuple(calibration["known_weights"])
    return IdentificationPart(
        Gallery(prototypes[:0], rows[:0], prototypes, rows, head_rows=rows[:0]),
        NearestCalibration(**{**calibration, "known_weights": known_weights}),
    )
