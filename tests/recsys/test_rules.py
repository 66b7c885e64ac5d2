import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from recsys.config import load_config, load_rules, read_rules, write_rules
from recsys.errors import ConfigError, InvalidArgumentError
from recsys.rules import MAX_IDS, MAX_RULES, NO_RULES, Period, Pin, Rules, Selection, Shift

MONDAY, TUESDAY, FRIDAY = (datetime(2026, 11, day, tzinfo=UTC) for day in (23, 24, 27))

EVERY_KIND = """
diversity = 0.3
max_per_category = 2
category_level = 1
popularity_penalty = 0.1
explore = 0.05
seed = 7
[[pin]]
item_id = "mug"
position = 1
since = 2026-11-23T00:00:00Z
until = 2026-11-24T00:00:00Z
[[boost]]
attributes = { brand = "Kiln" }
strength = 3
[[bury]]
category = "Kitchen > Mugs"
[[block]]
item_ids = ["bowl"]
"""
READ = Rules(
    diversity=0.3,
    max_per_category=2,
    category_level=1,
    popularity_penalty=0.1,
    explore=0.05,
    seed=7,
    pin=[Pin("mug", 1, since=MONDAY, until=TUESDAY)],
    boost=[Shift(attributes={"brand": "Kiln"}, strength=3)],
    bury=[Shift(category=("Kitchen", "Mugs"))],
    block=[Selection(["bowl"])],
)


def write(folder: Path, text: str, name: str = "rules.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_rules_are_read_from_a_file_and_from_the_training_configuration(tmp_path: Path) -> None:
    assert load_rules(write(tmp_path, EVERY_KIND)) == READ
    nested = EVERY_KIND.replace("[[", "[[rules.")
    config = load_config(write(tmp_path, f"[rules]\n{nested}"))
    assert config.rules == READ
    assert load_config(write(tmp_path, "")).rules == NO_RULES


def test_rules_are_the_same_after_they_were_sealed_as_json(tmp_path: Path) -> None:
    sealed = json.dumps(write_rules(READ))
    assert read_rules(json.loads(sealed)) == READ
    assert load_rules(write(tmp_path, sealed, "rules.json")) == READ
    assert write_rules(NO_RULES) == {}


def test_a_rule_is_in_force_from_since_on_and_before_until() -> None:
    pin = Pin("mug", 1, since=MONDAY, until=TUESDAY)
    assert [pin.holds(now) for now in (MONDAY, TUESDAY)] == [True, False]
    assert Pin("mug", 1, since=MONDAY).holds(FRIDAY)
    assert not Pin("mug", 1, until=MONDAY).holds(MONDAY)
    assert Pin("mug", 1).holds(FRIDAY)


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        (Period(), Period(), True),
        (Period(until=MONDAY), Period(since=MONDAY), False),
        (Period(until=TUESDAY), Period(since=MONDAY), True),
        (Period(since=MONDAY), Period(since=FRIDAY), True),
        (Period(since=MONDAY, until=TUESDAY), Period(since=TUESDAY, until=FRIDAY), False),
        (Period(since=MONDAY, until=FRIDAY), Period(since=TUESDAY), True),
    ],
)
def test_periods_overlap_where_one_moment_is_in_both(
    one: Period, other: Period, wanted: bool
) -> None:
    assert (one.overlaps(other), other.overlaps(one)) == (wanted, wanted)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"pin": [Pin("mug", 1), Pin("bowl", 2), Pin("mug", 3)]},
            r"pin\[0\] and pin\[2\] put item 'mug' at 1 and 3 at the same time; remove one, or",
        ),
        (
            {"pin": [Pin("mug", 4), Pin("bowl", 4, since=MONDAY)]},
            r"pin\[0\] and pin\[1\] put items 'mug' and 'bowl' at 4 at the same time",
        ),
        (
            {"pin": [Pin("mug", 4)], "block": [Selection(["jug"]), Selection(["mug"])]},
            r"pin\[0\] shows item 'mug' and block\[1\] hides it at the same time",
        ),
        (
            {"max_per_category": 2},
            "max_per_category and category_level must be given together, got 2 and None; level 1",
        ),
        ({"category_level": 2}, "must be given together, got None and 2"),
        ({"category_level": 5, "max_per_category": 1}, "category_level must be a whole number fro"),
        ({"diversity": 1.5}, "diversity must be a number from 0 to 1, got 1.5"),
        ({"explore": math.nan}, "explore must be a number from 0 to 1, got nan"),
        ({"popularity_penalty": "high"}, "popularity_penalty must be a number from 0 to 1"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"max_per_category": True, "category_level": 1}, "max_per_category must be a whole"),
        ({"boost": [Selection(["mug"])]}, r"boost\[0\] must be a Shift, got Selection"),
        ({"block": Selection(["mug"])}, "block must be a list of at most 100 Selection"),
        ({"pin": [Pin("mug", 1)] * (MAX_RULES + 1)}, "pin must be a list of at most 100 Pin"),
    ],
)
def test_rules_that_make_no_sense_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        Rules(**values)


def test_pins_of_other_times_do_not_contradict_each_other() -> None:
    pins = [Pin("mug", 1, until=MONDAY), Pin("mug", 2, since=MONDAY), Pin("jug", 1, since=MONDAY)]
    hidden = Selection(["mug"], since=FRIDAY)
    assert Rules(pin=pins[:1], block=[hidden]).pin == tuple(pins[:1])
    assert Rules(pin=pins).pin == tuple(pins)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Pin("mug", 0), "position must be a whole number from 1 to 500, got 0"),
        (lambda: Pin("mug", 1, since=FRIDAY, until=MONDAY), "since must be before until, got 2026"),
        (lambda: Pin("mug", 1, since=MONDAY, until=MONDAY), "since must be before until"),
        (
            lambda: Selection(["mug"], until=datetime(2026, 11, 1)),
            "until must be a moment with a time zone, such as .*, got 2026-11-01 00:00:00",
        ),
        (
            lambda: Selection(),
            "item_ids, category or attributes must say which items a rule is for, got",
        ),
        (
            lambda: Selection(category=" > "),
            "item_ids, category or attributes must say which items",
        ),
        (lambda: Selection("mug"), "item_ids must be a list of ids, got the text 'mug'"),
        (lambda: Selection(["mug"] * (MAX_IDS + 1)), "item_ids must have at most 1000 ids"),
        (lambda: Shift(["mug"], strength=0.5), "strength must be a number from 1 to 1000, got 0.5"),
    ],
)
def test_one_rule_that_makes_no_sense_is_refused(build: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        build()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("divers = 0.3\n", ["divers: unknown key; did you mean 'diversity'?"]),
        ("[[pin]]\nitem_id = 'a'\nplace = 1\n", ["pin.0.position: ", "pin.0.place: unknown key"]),
        ("[[block]]\nitems = ['a']\n", ["block.0.items: unknown key; did you mean 'item_ids'?"]),
        ("explore = 2\n", ["explore must be a number from 0 to 1, got 2"]),
        ("[[boost]]\nstrength = 2\n", ["boost.0: item_ids, category or attributes must say"]),
    ],
)
def test_problems_of_a_file_are_named_with_their_place(
    tmp_path: Path, text: str, lines: list[str]
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=f"rules {path} has") as raised:
        load_rules(path)
    for line in lines:
        assert line in str(raised.value)


def test_a_file_that_is_not_one_of_rules_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rules .*none.toml must be a readable file"):
        load_rules(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="must be TOML"):
        load_rules(write(tmp_path, "{}"))
    with pytest.raises(ConfigError, match="must be JSON"):
        load_rules(write(tmp_path, "seed = 3", "rules.JSON"))


def test_a_summary_names_what_is_not_as_by_default() -> None:
    assert NO_RULES.summary() == ""
    assert READ.summary() == (
        "diversity 0.3, max_per_category 2, category_level 1, popularity_penalty 0.1, explore "
        "0.05, seed 7, 1 of pin, 1 of boost, 1 of bury, 1 of block"
    )
    assert READ.without_exploration().explore == 0
    assert READ.item_ids == ["mug", "bowl"]
