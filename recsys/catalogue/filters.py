"""Which items may be returned; light enough for the client of the service to import."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real

from recsys.answers import read_path
from recsys.errors import InvalidArgumentError


@dataclass(frozen=True)
class Filters:
    """Which items may be returned; the default is every available item.

    >>> Filters(category="Apparel > Shoes", price_max=50, attributes={"colour": "blue"})

    Args:
        category: First parts of the category path, coarse to fine, or their text form such as
            "Apparel > Shoes".
        price_min: Lowest price, inclusive; items without a price are left out.
        price_max: Highest price, inclusive; items without a price are left out.
        attributes: Values that an item must have.
        available_only: Whether items that cannot be bought now are left out.

    Raises:
        InvalidArgumentError: If a price is not a finite number from 0 on, the lowest is above the
            highest, or the attributes are not a mapping from text to text.
    """

    category: str | tuple[str, ...] = ()
    price_min: float | None = None
    price_max: float | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    available_only: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "category", read_path(self.category))
        low, high = self.price_min, self.price_max
        for name, price in (("price_min", low), ("price_max", high)):
            if price is not None and not (isinstance(price, Real) and 0 <= price < math.inf):
                raise InvalidArgumentError(
                    f"{name} must be a finite number from 0 on, got {price!r}"
                )
        if low is not None and high is not None and low > high:
            raise InvalidArgumentError(f"price_min must be at most price_max {high}, got {low}")
        pairs = self.attributes.items() if isinstance(self.attributes, Mapping) else [(None, None)]
        if not all(isinstance(part, str) for pair in pairs for part in pair):
            raise InvalidArgumentError(
                "attributes must map names to values, both text, such as {'colour': 'blue'}, got "
                f"{self.attributes!r}"
            )
