"""The options that results must satisfy, shared by the commands that filter."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.errors import InvalidArgumentError

if TYPE_CHECKING:
    from recsys.catalogue.filters import Filters
    from recsys.catalogue.store import Catalogue


@dataclass(frozen=True)
class FilterOptions:
    """Options that results must satisfy, which become a ``Filters``."""

    category: Annotated[
        list[str] | None,
        typer.Option(
            help="Category path as in tables, such as 'Home > Lighting', or its first level; "
            "repeat it for the levels below."
        ),
    ] = None
    attribute: Annotated[
        list[str] | None,
        typer.Option(help="Attribute that results must have, as name=value; may be repeated."),
    ] = None
    price_min: Annotated[float | None, typer.Option(help="Lowest price of a result.")] = None
    price_max: Annotated[float | None, typer.Option(help="Highest price of a result.")] = None
    unavailable: Annotated[bool, typer.Option(help="Include items that cannot be bought now.")] = (
        False
    )

    def filters(self) -> "Filters":
        """Return the filters that the options describe.

        Raises:
            InvalidArgumentError: If an option makes no sense.
        """
        from recsys.catalogue.filters import Filters

        return Filters(
            category=" > ".join(self.category or ()),
            price_min=self.price_min,
            price_max=self.price_max,
            attributes=dict(_pair(one) for one in self.attribute or ()),
            available_only=not self.unavailable,
        )


def require_known(filters: "Filters", catalogue: "Catalogue") -> None:
    """Raise if no item at all has the category or an attribute; the service answers with no items.

    Raises:
        InvalidArgumentError: If it is unknown; the message has the nearest value that an item has.
    """
    values = catalogue.filter_values()
    paths = {" > ".join(path) for kind, path in values if kind == "category"}
    category = " > ".join(filters.category)
    if category and category not in paths:
        raise InvalidArgumentError(f"no item has category {category!r}{_hint(category, paths)}")
    pairs = {"=".join(pair) for kind, pair in values if kind == "attribute"}
    for pair in map("=".join, filters.attributes.items()):
        if pair not in pairs:
            raise InvalidArgumentError(f"no item has attribute {pair!r}{_hint(pair, pairs)}")


def _hint(text: str, known: Iterable[str]) -> str:
    """Return the known text that is nearest: one that ends in this one, or is spelled like it."""
    by_key = {one.casefold(): one for one in sorted(known)}
    key = text.casefold()
    below = [one for one in by_key if one.endswith((f"> {key}", f"={key}"))]
    near = below[:1] or difflib.get_close_matches(key, by_key, n=1)
    return f"; did you mean {by_key[near[0]]!r}?" if near else ""


def _pair(attribute: str) -> tuple[str, str]:
    name, separator, value = attribute.partition("=")
    if not (separator and name.strip()):
        raise InvalidArgumentError(
            f"--attribute must be name=value, such as colour=blue, got {attribute!r}"
        )
    return name, value
