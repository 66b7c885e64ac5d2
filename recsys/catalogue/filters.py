"""Which items may be returned; light enough for the client of the service to import."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Filters:
    """Which items may be returned; the default is every available item.

    >>> Filters(category=("Apparel",), price_max=50, attributes={"colour": "blue"})

    Args:
        category: First parts of the category path, coarse to fine.
        price_min: Lowest price, inclusive; items without a price are left out.
        price_max: Highest price, inclusive; items without a price are left out.
        attributes: Values that an item must have.
        available_only: Whether items that cannot be bought now are left out.
    """

    category: tuple[str, ...] = ()
    price_min: float | None = None
    price_max: float | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    available_only: bool = True
