"""From the values of the library to protobuf messages."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from protos.recsys.v1 import recommender_pb2 as pb
from recsys.answers import Group, Result, Verdict


def write_results(results: Sequence[Result]) -> list[pb.Result]:
    """Return results as messages."""
    return [
        pb.Result(
            item_id=result.item_id,
            score=result.score,
            source=result.source,
            features=[pb.Feature(name=name, value=value) for name, value in result.features],
        )
        for result in results
    ]


def write_verdict(verdict: Verdict) -> "pb.Verdict.ValueType":
    """Return a verdict on a photo as its enumeration value."""
    return pb.Verdict.Value(f"VERDICT_{verdict.upper()}")


def write_group(group: Group | None) -> pb.ProductGroup | None:
    """Return the product on a photo, or the few that it may be, as a message; None for None."""
    return pb.ProductGroup(**asdict(group)) if group is not None else None


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
