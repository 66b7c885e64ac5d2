"""Commands that query a bundle without a service: recommend, similar, search, identify."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from recsys.cli.filters import FilterOptions, require_known
from recsys.cli.options import BundlePath, Json, naming_image, read_file, with_options
from recsys.cli.output import console, print_json, print_results

if TYPE_CHECKING:
    from recsys.answers import Annotation, Identification

Count = Annotated[int, typer.Option("-k", "--k", help="Maximum number of results.")]


def recommend(
    bundle: BundlePath,
    user: Annotated[
        str, typer.Argument(help="Id of the user; an unknown id is treated as a new user.")
    ],
    k: Count = 10,
    at: Annotated[
        datetime | None, typer.Option(help="Time of the request in UTC; now if unset.")
    ] = None,
    exclude_seen: Annotated[
        bool, typer.Option(help="Leave out items that the user already has events with.")
    ] = False,
    rules: Annotated[
        Path | None,
        typer.Option(help="TOML or JSON file of rules for the list, in place of the bundle's."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Recommend items to a user."""
    from recsys import Recommender, load_rules

    read = load_rules(rules) if rules is not None else None
    recommender = Recommender.load(bundle)
    # The option has no zone, and is UTC wherever the command runs.
    moment = at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at
    results = recommender.recommend(
        user,
        k,
        now=moment,
        exclude_seen=exclude_seen,
        explain=True,
        rules=read,
    )
    print_results(f"for {user}", results, recommender, as_json=as_json)


def similar(
    bundle: BundlePath,
    item: Annotated[str, typer.Argument(help="Id of the item to compare with.")],
    k: Count = 10,
    as_json: Json = False,
) -> None:
    """Find the items most similar to an item."""
    from recsys import Recommender

    recommender = Recommender.load(bundle)
    results = recommender.similar(item, k=k)
    print_results(f"similar to {item}", results, recommender, as_json=as_json)


@with_options
def search(
    bundle: BundlePath,
    filters: FilterOptions,
    text: Annotated[str | None, typer.Argument(help="Words to search for.")] = None,
    image: Annotated[Path | None, typer.Option(help="Image file to search by.")] = None,
    mode: Annotated[
        Literal["hybrid", "vector", "lexical"],
        typer.Option(help="Search by embeddings (vector), by words (lexical), or by both."),
    ] = "hybrid",
    k: Count = 10,
    as_json: Json = False,
) -> None:
    """Search by words, by an image, or by both ("this, but in blue")."""
    from recsys import Recommender

    wanted = filters.filters()
    recommender = Recommender.load(bundle)
    require_known(wanted, recommender.catalogue)
    with naming_image(image):
        results = recommender.search(text, image, k, filters=wanted, mode=mode)
    print_results(f"search {text or image}", results, recommender, as_json=as_json)


def identify(
    bundle: BundlePath,
    photo: Annotated[
        Path, typer.Argument(help="Image file of the photo.", exists=True, dir_okay=False)
    ],
    k: Count = 5,
    as_json: Json = False,
) -> None:
    """Say which product a photo shows, or that it is not in the catalogue."""
    from recsys import ProductIdentifier, Recommender
    from recsys.answers import PRECISION_NOT_REACHED, WORDS_UNREAD
    from vision.words import INSTALL

    recommender = Recommender.load(bundle)
    with naming_image(photo):
        answer = ProductIdentifier(recommender).identify(read_file(photo), k=k)
    if as_json:
        group, annotation = answer.product_group, answer.annotation
        candidates = [{"item_id": one.item_id, "score": one.score} for one in answer.candidates]
        print_json(
            {
                "bundle_version": recommender.version,
                "verdict": answer.verdict,
                "known": answer.known,
                "probability": answer.probability,
                "product_group": asdict(group) if group is not None else None,
                "candidates": candidates,
                "annotation": asdict(annotation) if annotation is not None else None,
                "words": answer.words,
                "degraded": answer.degraded,
            }
        )
        return
    console.print(f"{photo}: {describe(answer)}")
    if answer.annotation is not None:
        console.print(describe_annotation(answer.annotation), highlight=False)
    if PRECISION_NOT_REACHED in answer.degraded:
        promise = recommender.bundle.identification.calibration.sentence()
        console.print(f"this bundle: {promise}", highlight=False)
    if answer.words:
        console.print(f"read: {', '.join(answer.words)}", markup=False)
    if WORDS_UNREAD in answer.degraded:
        console.print(f"words were not read: rapidocr is not installed ({INSTALL})", markup=False)
    print_results("candidates", answer.candidates, recommender, as_json=False)


def describe(answer: "Identification") -> str:
    """Return the verdict on a photo and its probability, as one line for people."""
    group = answer.product_group
    if group is None:
        said = {"unsure": "not sure", "unknown": "probably not in the catalogue"}[answer.verdict]
        return f"{said} (probability of being in the catalogue {answer.probability:.2f})"
    names, place = " or ".join(group.item_ids), " > ".join(group.category)
    some = f"some {place}: " if answer.verdict == "group" and place else ""
    return f"{some}{names} (probability {group.probability:.2f})"


def describe_annotation(shown: "Annotation") -> str:
    """Return category, attributes and colours with their probabilities, as one line for people."""
    parts = []
    if shown.category_probability is not None:
        path = " > ".join(shown.category) or "category unsure"
        parts.append(f"{path} {shown.category_probability:.2f}")
    parts += [
        f"{name} {guess.value} {guess.probability:.2f}"
        for name, guess in shown.attributes.items()
        if guess.value is not None
    ]
    parts += [f"{one.name} on {100 * one.share:.0f} %" for one in shown.colours]
    return "shows " + ", ".join(parts)
