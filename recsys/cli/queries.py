"""Commands that ask a bundle in-process: recommend, similar, search, identify."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.output import console, print_json, print_results

BundlePath = Annotated[Path, typer.Argument(help="A bundle, or a folder of bundles.")]
Count = Annotated[int, typer.Option("-k", "--k", help="How many results.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def recommend(
    bundle: BundlePath,
    user: Annotated[str, typer.Argument(help="User id; an unknown one is a newcomer.")],
    k: Count = 10,
    at: Annotated[
        datetime | None, typer.Option(help="Moment of the request, UTC; now if unset.")
    ] = None,
    exclude_seen: Annotated[bool, typer.Option(help="Leave out what the user has met.")] = False,
    as_json: Json = False,
) -> None:
    """Recommend items to a user."""
    from recsys import Bundle, Recommender

    recommender = Recommender(Bundle(bundle))
    moment = at or datetime.now(UTC)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    results = recommender.recommend(
        recommender.history(user),
        k=k,
        now_us=round(moment.timestamp() * 1e6),
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
    """Find the items most like an item."""
    from recsys import Bundle, Recommender

    recommender = Recommender(Bundle(bundle))
    results = recommender.similar(item, k=k)
    print_results(f"like {item}", results, recommender, as_json=as_json)


def search(
    bundle: BundlePath,
    text: Annotated[str | None, typer.Argument(help="Words to search for.")] = None,
    image: Annotated[Path | None, typer.Option(help="A picture to search by.")] = None,
    k: Count = 10,
    as_json: Json = False,
) -> None:
    """Search by words, by a picture, or by both."""
    from recsys import Bundle, Recommender

    recommender = Recommender(Bundle(bundle))
    results = recommender.search(text, image.read_bytes() if image else None, k=k)
    print_results(f"search {text or image}", results, recommender, as_json=as_json)


def identify(
    bundle: BundlePath,
    photo: Annotated[Path, typer.Argument(help="A photo file.", exists=True, dir_okay=False)],
    k: Count = 5,
    as_json: Json = False,
) -> None:
    """Tell which product is on a photo, or that it is not in the catalogue."""
    from recsys import Bundle, ProductIdentifier, Recommender

    recommender = Recommender(Bundle(bundle))
    answer = ProductIdentifier(recommender).identify(photo.read_bytes(), k=k)
    if as_json:
        candidates = [{"item_id": one.item_id, "score": one.score} for one in answer.candidates]
        print_json(
            {
                "bundle_version": recommender.version,
                **answer._asdict(),
                "candidates": candidates,
            }
        )
        return
    verdict = "in the catalogue" if answer.known else "not in the catalogue"
    console.print(f"{photo}: {verdict} (probability of being in it {answer.probability:.2f})")
    print_results("candidates", answer.candidates, recommender, as_json=False)
