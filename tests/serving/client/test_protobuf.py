from datetime import UTC, datetime

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from recsys.rules import Pin, Rules, Selection, Shift
from recsys.schema import ItemSchema
from serving.client import Event, Filters, Item
from serving.client import protobuf as wire
from serving.client.events import build_events
from serving.rpc import requests, responses
from serving.rpc.events import read_events

# Without blanks and control characters, which are cut off or refused.
words = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20)
prices = st.floats(0, 1e9)
moments = st.datetimes(datetime(1900, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC))


@given(
    st.builds(
        Item,
        item_id=words,
        title=st.none() | words,
        description=st.none() | words,
        image=st.none() | words,
        category=st.lists(words, max_size=4).map(tuple),
        price=st.none() | prices,
        attributes=st.dictionaries(words, words, max_size=4),
        available=st.booleans(),
        created_at=st.none() | moments,
    )
)
def test_an_item_survives_the_way_there_and_back(item: Item) -> None:
    request = wire.build_items([item], {})

    (new,) = requests.read_upserts(request.items, max_image_bytes=1)
    rows = pl.DataFrame([new.fields], schema=ItemSchema.create_empty().schema)
    ItemSchema.validate(rows)

    assert wire._read_item(responses.write_item(rows.row(0, named=True))) == item


periods = st.sampled_from(
    [{}, {"since": datetime(2026, 1, 1, tzinfo=UTC), "until": datetime(2026, 1, 2, tzinfo=UTC)}]
)
selections = st.fixed_dictionaries(
    {
        "item_ids": st.lists(words, min_size=1, max_size=3),
        "category": st.lists(words, max_size=3).map(tuple),
        "attributes": st.dictionaries(words, words, max_size=3),
    }
)
shifts = st.builds(
    lambda which, when, strength: Shift(**which, **when, strength=strength),
    selections,
    periods,
    st.floats(1, 1_000),
)
shares = st.floats(0, 1)


@given(
    st.builds(
        Rules,
        diversity=shares,
        popularity_penalty=shares,
        explore=shares,
        seed=st.none() | st.integers(0, 2**63 - 1),
        max_per_category=st.just(3),
        category_level=st.integers(1, 4),
        pin=st.builds(lambda one, when: [Pin(f"pinned {one}", 3, **when)], words, periods)
        | st.just([]),
        boost=st.lists(shifts, max_size=2),
        bury=st.lists(shifts, max_size=2),
        block=st.lists(
            st.builds(lambda which, when: Selection(**which, **when), selections, periods),
            max_size=2,
        ),
    )
    | st.just(Rules())
)
def test_rules_survive_the_way(rules: Rules) -> None:
    message = wire.build_rules(rules)
    assert message is not None
    assert requests.read_rules(message) == rules


@given(
    st.builds(
        Filters,
        category=st.lists(words, max_size=3).map(tuple),
        price_min=st.none() | st.floats(0, 10),
        price_max=st.none() | st.floats(10, 20),
        attributes=st.dictionaries(words, words, max_size=3),
        available_only=st.booleans(),
    )
)
def test_filters_mean_the_same_on_both_sides(filters: Filters) -> None:
    assert requests.read_filters(wire.build_filters(filters)) == filters


@given(
    st.builds(
        Event,
        words,
        words,
        words,
        moments,
        quantity=st.floats(0, 1e6),
        value=st.none() | prices,
        propensity=st.none() | st.floats(0.001, 1),
        placement=st.none() | words,
    )
)
def test_an_event_survives_the_way_there(event: Event) -> None:
    request = build_events([event], now=datetime.now(UTC))

    (read,) = read_events(request.events, now_us=2**60)

    assert read == event


def test_an_event_without_a_time_happens_when_the_call_was_made() -> None:
    now = datetime(2025, 1, 1, tzinfo=UTC)

    request = build_events([Event("ann", "mug", "view")], now=now)

    assert request.events[0].timestamp.ToDatetime(tzinfo=UTC) == now
