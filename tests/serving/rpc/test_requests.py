import math

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from protos.recsys.v1 import recommender_pb2 as pb
from recsys.catalogue.filters import Filters
from recsys.data.timestamps import from_us
from recsys.errors import InvalidArgumentError, InvalidImageError
from serving.rpc import requests


def test_ids_keep_their_order() -> None:
    assert requests.read_ids("item_ids", ["b", "a"], at_least=1, at_most=2) == ["b", "a"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "item_ids must have 1 to 3 entries, got 0"),
        (["a", "b", "c", "d"], "item_ids must have 1 to 3 entries, got 4"),
        (["a", ""], r"item_ids\[1\] must have 1 to 1024 characters, got 0"),
        (["x" * 1025], r"item_ids\[0\] must have 1 to 1024 characters, got 1025"),
        (["a\0b"], r"item_ids\[0\] must not contain control characters, got 'a\\x00b'"),
        (["a", "b", "a"], "item_ids must be distinct, got 'a' more than once"),
    ],
)
def test_the_error_for_wrong_ids_has_index_and_limit(ids: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        requests.read_ids("item_ids", ids, at_least=1, at_most=3)


def test_a_time_is_exact_to_the_microsecond() -> None:
    assert requests.read_us("now", Timestamp(seconds=1_700_000_000, nanos=123_456_789)) == (
        1_700_000_000_123_456
    )
    assert requests.read_us("now", Timestamp(seconds=-1)) == -1_000_000


@pytest.mark.parametrize("seconds", [2**60, -(2**60)])
def test_a_time_outside_the_calendar_is_refused(seconds: int) -> None:
    with pytest.raises(ValueError, match="now must be a time of the years 1 to 9999"):
        requests.read_us("now", Timestamp(seconds=seconds))


def test_a_request_names_its_moment_or_happens_now() -> None:
    named = pb.RankRequest(now=Timestamp(seconds=7))

    assert requests.read_now(named) == from_us(7_000_000)
    assert requests.read_now(pb.RankRequest()) is None


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (pb.Rules(diversity=-1), "rules.diversity must be a number from 0 to 1, got -1.0"),
        (pb.Rules(max_per_category=2), "rules.max_per_category and category_level must be given"),
        (pb.Rules(pin=[pb.Pin(item_id="a")]), r"rules.pin\[0\].position must be a whole number"),
        (pb.Rules(pin=[pb.Pin(position=1)]), r"rules.pin\[0\].item_id must have 1 to"),
        (
            pb.Rules(block=[pb.Selection()]),
            r"rules.block\[0\].item_ids, category or attributes must",
        ),
        (
            pb.Rules(boost=[pb.Shift(items=pb.Selection(category=["x"] * 257))]),
            r"rules.boost\[0\].category must have 0 to 256 entries, got 257",
        ),
        (
            pb.Rules(bury=[pb.Shift(items=pb.Selection(item_ids=["a"]), strength=0.1)]),
            r"rules.bury\[0\].strength must be a number from 1 to 1000, got 0.1",
        ),
    ],
)
def test_rules_that_make_no_sense_are_refused(rules: pb.Rules, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        requests.read_rules(rules)


def test_no_filters_are_the_default_filters() -> None:
    assert requests.read_filters(pb.Filters()) == Filters()


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (pb.Filters(price_min=5, price_max=4), "price_min must be at most price_max 4.0, got 5.0"),
        (pb.Filters(price_min=-1), "filters.price_min must be a number from 0 to 1e.12, got -1.0"),
        (pb.Filters(price_max=math.nan), "filters.price_max must be a number from 0 .*, got nan"),
        (pb.Filters(price_max=1e308), "filters.price_max must be a number .*1e.12, got 1e.308"),
        (pb.Filters(category=["x"] * 257), "filters.category must have 0 to 256 entries, got 257"),
        (
            pb.Filters(attributes={str(n): "x" for n in range(257)}),
            "filters.attributes must have 0 to 256 entries, got 257",
        ),
    ],
)
def test_filters_that_make_no_sense_are_refused(filters: pb.Filters, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        requests.read_filters(filters)


def test_a_search_is_hybrid_unless_it_says_otherwise() -> None:
    assert requests.read_search_mode(pb.SearchRequest().mode) == "hybrid"
    assert requests.read_search_mode(pb.SEARCH_MODE_LEXICAL) == "lexical"
    with pytest.raises(ValueError, match=r"mode must be one of SEARCH_MODE_UNSPECIFIED.*got 7"):
        requests.read_search_mode(pb.SearchRequest(mode=7).mode)  # type: ignore[arg-type]


def test_a_bound_of_zero_is_a_bound() -> None:
    assert requests.read_filters(pb.Filters(price_max=0)).price_max == 0


def test_an_upsert_sets_removes_or_keeps_the_picture() -> None:
    upserts = [
        pb.ItemUpsert(item=pb.Item(item_id="new"), picture=b"bytes"),
        pb.ItemUpsert(item=pb.Item(item_id="bare"), picture=b""),
        pb.ItemUpsert(item=pb.Item(item_id="kept")),
    ]

    pictures = [item.picture for item in requests.read_upserts(upserts, max_image_bytes=5)]

    assert pictures == [b"bytes", b"", None]
    with pytest.raises(
        InvalidImageError, match=r"items\[0\].picture must have 1 to 4 bytes, got 5"
    ):
        requests.read_upserts(upserts, max_image_bytes=4)


def test_a_text_of_an_item_has_a_limit() -> None:
    long = pb.ItemUpsert(item=pb.Item(item_id="a", title="x" * 20_001))

    with pytest.raises(ValueError, match=r"items\[0\].title must have at most 20000 characters"):
        requests.read_upserts([long], max_image_bytes=1)


def test_an_item_is_held_to_the_bounds_of_a_table() -> None:
    far, dear = Timestamp(seconds=253_370_764_800), 1.7976931348623157e308

    for item, message in (
        (pb.Item(item_id="a", price=dear), r"items\[0\].price must be a number .*1e.12, got 1.79"),
        (
            pb.Item(item_id="a", created_at=far),
            r"created_at must lie before the year 2100, got 999",
        ),
        (pb.Item(item_id="a", category=["x"] * 257), "category must have 0 to 256 entries"),
    ):
        with pytest.raises(ValueError, match=message):
            requests.read_upserts([pb.ItemUpsert(item=item)], max_image_bytes=1)


def test_values_are_cleaned_as_those_of_a_table() -> None:
    item = pb.Item(
        item_id=" a\u200b",
        title="  ",
        category=[" Kitchen ", ""],
        attributes={"colour": "red", "size": " "},
    )

    (new,) = requests.read_upserts([pb.ItemUpsert(item=item)], max_image_bytes=1)

    assert (new.fields["item_id"], new.fields["title"]) == ("a", None)
    assert new.fields["category"] == ["Kitchen"]
    assert new.fields["attributes"] == [{"key": "colour", "value": "red"}]
