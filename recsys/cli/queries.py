"""Commands that query a bundle without a service: recommend, similar, search, identify."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from recsys.cli.options import BundlePath, Json, read_file, with_options
from recsys.cli.output import console, print_json, print_results
from recsys.errors import InvalidArgumentError

if TYPE_CHECKING:
    from recsys.answers import Identification
    from recsys.catalogue.filters import Filters

Count = Annotated[int, typer.Option("-k", "--k", help="Maximum number of results.")]


@dataclass(frozen=True)
class FilterOptions:
    """Conditions on the results, from which ``filters`` makes a ``Filters``."""

    category: Annotated[
        list[str] | None,
        typer.Option(help="Category level; repeat it from coarse to fine."),
    ] = None
    attribute: Annotated[
        list[str] | None,
        typer.Option(help="Attribute of the items, as name=value; may be repeated."),
    ] = None
    price_min: Annotated[float | None, typer.Option(help="Lowest price.")] = None
    price_max: Annotated[float | None, typer.Option(help="Highest price.")] = None
    unavailable: Annotated[bool, typer.Option(help="Include items that are not available.")] = False

    def filters(self) -> "Filters":
        """Return the filters that the options describe."""
        from recsys.catalogue.filters import Filters

        return Filters(
            category=tuple(self.category or ()),
            price_min=self.price_min,
            price_max=self.price_max,
            attributes=dict(_pair(one) for one in self.attribute or ()),
            available_only=not self.unavailable,
        )


def recommend(
    bundle: BundlePath,
    user: Annotated[str, typer.Argument(help="User id; an unknown user counts as new.")],
    k: Count = 10,
    at: Annotated[
        datetime | None, typer.Option(help="Moment of the request, UTC; now if unset.")
    ] = None,
    exclude_seen: Annotated[bool, typer.Option(help="Leave out items in the history.")] = False,
    as_json: Json = False,
) -> None:
    """Recommend items to a user."""
    from recsys import Recommender

    recommender = Recommender.load(bundle)
    # The option has no zone, and is UTC wherever the command runs.
    moment = at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at
    results = recommender.recommend(
        user,
        k,
        now=moment,
        exclude_seen=exclude_seen,
        explain=True,
    )
    print_results(f"for {user}", results, recommender, as_json=as_json)


def similar(
    bundle: BundlePath,
    item: Annotated[str, typer.Argument(help="Item id.")],
    k: Count = 10,
    as_json: Json = False,
) -> None:
    """Find the items most similar to an item."""
    from recsys import Recommender

    recommender = Recommender.load(bundle)
    results = recommender.similar(item, k=k)
    print_results(f"like {item}", results, recommender, as_json=as_json)


@with_options
def search(
    bundle: BundlePath,
    filters: FilterOptions,
    text: Annotated[str | None, typer.Argument(help="Words to search for.")] = None,
    image: Annotated[Path | None, typer.Option(help="Image file to search by.")] = None,
    mode: Annotated[
        Literal["hybrid", "vector", "lexical"],
        typer.Option(help="Search by embedding and words (hybrid), by embedding, or by words."),
    ] = "hybrid",
    k: Count = 10,
    as_json: Json = False,
) -> None:
    """Search by words, by an image, or by both ("this, but in blue")."""
    from recsys import Recommender

    recommender = Recommender.load(bundle)
    results = recommender.search(text, image, k, filters=filters.filters(), mode=mode)
    print_results(f"search {text or image}", results, recommender, as_json=as_json)


def _pair(attribute: str) -> tuple[str, str]:
    name, separator, value = attribute.partition("=")
    if not separator:
        raise InvalidArgumentError(
            f"--attribute must be name=value, such as colour=blue, got {attribute!r}"
        )
    return name, value


def identify(
    bundle: BundlePath,
    photo: Annotated[Path, typer.Argument(help="Photo file.", exists=True, dir_okay=False)],
    k: Count = 5,
    as_json: Json = False,
) -> None:
    """Identify the product on a photo, or say that it is not in the catalogue."""
    from recsys import ProductIdentifier, Recommender

    recommender = Recommender.load(bundle)
    answer = ProductIdentifier(recommender).identify(read_file(photo), k=k)
    if as_json:
        group = answer.product_group
        candidates = [{"item_id": one.item_id, "score": one.score} for one in answer.candidates]
        print_json(
            {
                "bundle_version": recommender.version,
                "verdict": answer.verdict,
                "known": answer.known,
                "probability": answer.probability,
                "answer": asdict(group) if group is not None else None,
                "candidates": candidates,
            }
        )
        return
    console.print(f"{photo}: {describe(answer)}")
    print_results("candidates", answer.candidates, recommender, as_json=False)


def describe(answer: "Identification") -> str:
    """Return the answer for a photo, with its probability, as one line."""
    group = answer.product_group
    if group is None:
        said = {"unsure": "not sure", "unknown": "probably not in the catalogue"}[answer.verdict]
        return f"{said} (probability of being in the catalogue {answer.probability:.2f})"
    names, place = " or ".join(group.item_ids), " > ".join(group.category)
    some = f"some {place}: " if answer.verdict == "group" and place else ""
    return f"{some}{names} (probability {group.probability:.2f})"
