"""From the values of the library to protobuf messages."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from protos.recsys.v1 import recommender_pb2 as pb
from recsys.answers import Annotation, Group, Result, Verdict
from recsys.data.timestamps import from_us
from serving.errors import InternalError
from serving.state.bundled import Judged
from serving.state.records import ItemRecord


def write_results(results: Sequence[Result]) -> list[pb.Result]:
    """Return results as messages.

    Raises:
        InternalError: If a score is NaN or infinite, by which no caller could sort.
    """
    return [
        pb.Result(
            item_id=result.item_id,
            score=check_finite(f"score of item {result.item_id!r}", result.score),
            source=result.source,
            features=[pb.Feature(name=name, value=value) for name, value in result.features],
            reason=pb.Reason(**asdict(result.reason)) if result.reason is not None else None,
            propensity=result.propensity,
            probability=result.probability,
        )
        for result in results
    ]


def check_finite(name: str, value: float) -> float:
    """Return a number of an answer, unless it is NaN or infinite.

    Raises:
        InternalError: If it is.
    """
    if not math.isfinite(value):
        raise InternalError(f"{name} must be finite, got {value}; the bundle's weights may be bad")
    return value


def write_verdict(verdict: Verdict) -> "pb.Verdict.ValueType":
    """Return a verdict on a photo as its enumeration value."""
    return pb.Verdict.Value(f"VERDICT_{verdict.upper()}")


def write_group(group: Group | None) -> pb.ProductGroup | None:
    """Return the product on a photo, or the few that it may be, as a message; None for None."""
    return pb.ProductGroup(**asdict(group)) if group is not None else None


def write_annotation(annotation: Annotation | None) -> pb.Annotation | None:
    """Return what a photo shows as a message; None for None.

    Raises:
        InternalError: If a probability is NaN or infinite.
    """
    if annotation is None:
        return None
    message = pb.Annotation(
        category=annotation.category,
        colours=[pb.Colour(**asdict(colour)) for colour in annotation.colours],
        words=[pb.ReadText(**asdict(line)) for line in annotation.words],
    )
    if annotation.category_probability is not None:
        message.category_probability = check_finite(
            "category_probability", annotation.category_probability
        )
    for name, guess in annotation.attributes.items():
        probability = check_finite(f"probability of {name!r}", guess.probability)
        message.attributes[name].CopyFrom(pb.Guess(value=guess.value, probability=probability))
    return message


def write_live_item(record: ItemRecord, judged: Judged) -> pb.LiveItem:
    """Return a live record as a message, with what of it is newer than the bundle's table."""
    message = pb.LiveItem(item_id=record.item_id, deleted=record.deleted, counts=judged.counts)
    if record.written is not None:
        message.written_at.FromDatetime(from_us(record.written.at_us))
        message.bundle_version = record.written.version
        for name, time_us in sorted(record.written.changed_us.items()):
            field = message.fields.add(name=name, counts=name in judged.counting)
            field.changed_at.FromDatetime(from_us(time_us))
    return message


def write_item(fields: dict[str, Any]) -> pb.Item:
    """Return a row of ``ItemSchema`` as a message."""
    message = pb.Item(
        item_id=fields["item_id"],
        title=fields["title"],
        description=fields["description"],
        image=fields["image"],
        category=fields["category"],
        price=fields["price"],
        attributes={pair["key"]: pair["value"] for pair in fields["attributes"] or ()},
        available=fields["available"],
    )
    if fields["created_at"] is not None:
        message.created_at.FromDatetime(fields["created_at"])
    return message
