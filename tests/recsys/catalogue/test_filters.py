import math
from typing import Any

import numpy as np
import pytest

from recsys.answers import Item
from recsys.catalogue.filters import Filters
from recsys.errors import InvalidArgumentError


@pytest.mark.parametrize(
    ("category", "path"),
    [
        ("Kitchen", ("Kitchen",)),
        ("Home > Lighting>Table lamps ", ("Home", "Lighting", "Table lamps")),
        (["Home", " Lighting "], ("Home", "Lighting")),
        (("A > B",), ("A > B",)),  # a level of a list may have any characters
        ("", ()),
        (" > ", ()),
    ],
)
def test_a_text_is_the_path_that_it_is_in_tables(category: Any, path: tuple[str, ...]) -> None:
    assert Filters(category=category).category == path
    assert Filters(category=category) == Filters(category=path)
    assert Item("a", category=category).category == path


@pytest.mark.parametrize("price", [math.nan, math.inf, -math.inf, -1, "5", [5]])
@pytest.mark.parametrize("name", ["price_min", "price_max"])
def test_a_price_that_is_none_is_refused(name: str, price: Any) -> None:
    with pytest.raises(
        InvalidArgumentError, match=f"{name} must be a finite number from 0 on, got"
    ):
        Filters(**{name: price})


def test_numbers_of_any_kind_are_prices() -> None:
    assert Filters(price_min=0, price_max=np.float32(5.5)).price_max == 5.5
    assert Filters(price_min=5, price_max=5.0) == Filters(price_min=5.0, price_max=5)


def test_prices_that_no_item_can_have_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="price_min must be at most price_max 1, got 5"):
        Filters(price_min=5, price_max=1)


@pytest.mark.parametrize("attributes", ["colour=red", {"size": 42}, {"colour": ["red"]}, {1: "a"}])
def test_attributes_are_texts_by_name(attributes: Any) -> None:
    with pytest.raises(
        InvalidArgumentError, match="attributes must map names to values, both text"
    ):
        Filters(attributes=attributes)
