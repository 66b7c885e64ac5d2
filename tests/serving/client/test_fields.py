from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protos.recsys.v1 import recommender_pb2 as pb
from recsys.errors import InvalidArgumentError
from serving.client.fields import build, build_image, build_timestamp

HALF = "half \ud800"


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"item_id": HALF}, r"items\[2\].item_id must be text without half .*got 'half \\ud800'"),
        ({"item_id": "a", "title": 5}, r"items\[2\].title must be text .*, got 5"),
        ({"category": ["ok", HALF]}, r"items\[2\].category\[1\] must be text"),
        ({"category": ("ok", None)}, r"items\[2\].category\[1\] must be text .*got None"),
        ({"attributes": {"colour": HALF}}, r"items\[2\].attributes\['colour'\] must be"),
        ({"attributes": {"colour": 5}}, r"items\[2\].attributes\['colour'\] must be"),
        ({"price": "12"}, r"items\[2\].price must be a number, got '12'"),
        ({"price": 10**400}, r"items\[2\].price must be a number, got 1000"),
        ({"available": "no"}, r"items\[2\].available must be True or False, got 'no'"),
    ],
)
def test_the_error_names_the_value_that_the_protocol_cannot_carry(
    fields: dict[str, Any], wanted: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=wanted):
        build(pb.Item, "items[2].", **fields)


def test_numbers_of_other_libraries_are_numbers() -> None:
    item = build(pb.Item, item_id=np.str_("mug"), price=Decimal("1.5"))
    assert (item.item_id, item.price) == ("mug", 1.5)
    assert build(pb.RecommendRequest, k=np.int64(3)).k == 3


@pytest.mark.parametrize("value", [b"image", bytearray(b"image"), memoryview(b"image")])
def test_an_image_is_bytes_of_any_kind(value: Any) -> None:
    assert build_image("image", value) == b"image"
    assert build_image("image", None) is None


@pytest.mark.parametrize("value", ["image.png", Path("image.png"), BytesIO(b"image"), 5])
def test_what_is_not_the_bytes_of_an_image_is_refused_with_the_way_to_read_it(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"image must be the bytes .*read_bytes\(\)"):
        build_image("image", value)


@pytest.mark.parametrize("value", [date(2025, 1, 1), "2025-01-01", 1735689600])
def test_what_is_not_a_time_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"now must be a datetime with a time zone, got"):
        build_timestamp("now", value)


def test_a_time_whose_moment_no_calendar_has_is_refused() -> None:
    early = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5)))
    with pytest.raises(InvalidArgumentError, match=r"now must be a time of the years 1 to 9999"):
        build_timestamp("now", early)
    assert build_timestamp("now", datetime(1, 1, 1, tzinfo=UTC)) is not None
