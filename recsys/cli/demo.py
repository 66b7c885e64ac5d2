"""The demo command: generate a shop, train on it, and ask the running service."""

import asyncio
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli.options import with_options
from recsys.cli.output import (
    announce_stage,
    console,
    print_answer,
    print_report,
    print_rows,
    progress_bar,
)
from recsys.data.files import writing

if TYPE_CHECKING:
    from recsys.data.synthetic import Shop
    from serving.client import Answer, AsyncClient

# Fixed, so that everybody who runs the demo sees the same shop and the same figures.
END = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Scale:
    """The size of the demo, which tests make smaller; not shown in its help.

    Args:
        items: Number of products.
        users: Number of shoppers; the default is enough that the intervals of the full model
            and its ablations do not overlap.
        months: Months of events.
        config: Configuration that is used in place of the demo's own.
    """

    items: Annotated[int, typer.Option(hidden=True)] = 1_200
    users: Annotated[int, typer.Option(hidden=True)] = 6_000
    months: Annotated[int, typer.Option(hidden=True)] = 24
    config: Annotated[Path | None, typer.Option(hidden=True)] = None


@with_options
def run(
    scale: Scale,
    out: Annotated[
        Path, typer.Option(help="Folder to write the shop, bundle and report to.")
    ] = Path("out/demo"),
    seed: Annotated[int, typer.Option(help="Random seed that the shop is generated from.")] = 0,
) -> None:
    """Generate a shop, train on it, evaluate, serve it, and print what the service answers."""
    from recsys.config import load_config
    from recsys.evaluation.page import write_report
    from recsys.evaluation.run_report import report_run
    from recsys.pipeline import train

    start = time.monotonic()
    shop = _generate(out / "shop", seed, scale)
    config_path = shop.folder / "demo.toml"
    settings = scale.config or resources.files("recsys.cli") / "demo.toml"
    config_path.write_text(settings.read_text())
    console.rule("train")
    config = load_config(config_path)
    result = train(config, out, progress=True, announce=announce_stage)
    console.rule("evaluate")
    with progress_bar() as advance:
        report = report_run(result, config.evaluation, title="Generated shop", progress=advance)
    report_path = write_report(report, out)
    print_report(report)
    console.rule("serve")
    asyncio.run(_query_service(result.bundle, shop, out / "state"))
    console.rule("done")
    console.print(
        f"In {time.monotonic() - start:.0f} s: generated a shop of {shop.n_items:,} items and "
        f"{shop.n_events:,} events; trained, evaluated and bundled its towers, item space, user "
        "encoder and ranker; served the bundle and queried the service."
    )
    console.print(f"  bundle  {result.bundle}")
    console.print(f"  report  {report_path}")
    console.print(f"  again   recsys serve {result.bundle}")


def _generate(folder: Path, seed: int, scale: Scale) -> "Shop":
    from recsys.data.synthetic import generate_shop

    with writing(folder):
        if folder.exists():
            shutil.rmtree(folder)
    console.rule("generate a shop")
    with progress_bar() as advance:
        return generate_shop(
            folder,
            end=END,
            n_items=scale.items,
            n_users=scale.users,
            months=scale.months,
            seed=seed,
            progress=advance,
        )


async def _query_service(bundle: Path, shop: "Shop", state: Path) -> None:
    from serving.client import AsyncClient
    from serving.config import build_config
    from serving.rpc.server import Service

    shutil.rmtree(state, ignore_errors=True)  # events and items that an earlier demo recorded
    service = await Service.start(bundle, build_config({}, port=0, state=state))
    console.print(f"gRPC on {service.address}, Redis embedded in {state}")
    try:
        async with AsyncClient(service.address) as client:
            await _recommend(client, shop)
            await _find(client)
            await _identify(client, shop)
            await _upsert(client, shop)
    finally:
        await service.stop()


async def _recommend(client: "AsyncClient", shop: "Shop") -> None:
    """Ask for recommendations, record a purchase, and ask again."""
    from serving.client import Event

    user = _regular(shop)
    before = await client.recommend(user, k=5, now=END, explain=True)
    await _print_answer(client, f"recommended to {user}", before)
    taken = before.results[-1].item_id
    moment = END + timedelta(minutes=1)
    await client.record_events([Event(user, taken, "purchase", timestamp=moment)])
    after = await client.recommend(user, k=5, now=END + timedelta(minutes=2), explain=True)
    await _print_answer(client, f"and after {user} bought {taken}", after)
    changed = [one.item_id for one in before.results] != [one.item_id for one in after.results]
    console.print(f"the answer {'changed' if changed else 'did not change'} at once\n")


def _regular(shop: "Shop") -> str:
    """Return the user with the median number of events among those with ten or more."""
    import polars as pl

    counts = (
        pl.read_parquet(shop.events, glob=False)["user_id"]
        .value_counts()
        .filter(pl.col("count") >= 10)
    )
    return str(counts.sort("count", "user_id")["user_id"][len(counts) // 2])


async def _find(client: "AsyncClient") -> None:
    """Search by words, then ask for items similar to the first result."""
    found = await client.search("nordic lamp", k=5)
    await _print_answer(client, 'search "nordic lamp"', found)
    first = found.results[0].item_id
    await _print_answer(client, f"similar to {first}", await client.similar(first, k=5))


async def _identify(client: "AsyncClient", shop: "Shop") -> None:
    """Identify four test photos; the product in the last is not in the catalogue."""
    import polars as pl

    known, unknown = (
        pl.read_parquet(table, glob=False).filter(split="test").select("image", "item_id")
        for table in (shop.photos, shop.unknown)
    )
    rows = []
    for photo in pl.concat([known.head(3), unknown.head(1)]).iter_rows(named=True):
        answer = await client.identify((shop.images / photo["image"]).read_bytes(), k=3)
        candidates = ", ".join(f"{one.item_id} {one.score:.2f}" for one in answer.candidates)
        truth = photo["item_id"] or "not in the catalogue"
        rows.append(
            (photo["image"], truth, answer.verdict, f"{answer.probability:.2f}", candidates)
        )
    print_rows("photos", ("photo", "truth", "answer", "P(known)", "candidates"), rows)


async def _upsert(client: "AsyncClient", shop: "Shop") -> None:
    """Add a product with a title and a picture, and search for it at once."""
    import polars as pl

    from serving.client import Item

    # A product of the same brands that is not in the catalogue yet.
    stranger = pl.read_parquet(shop.unknown, glob=False).filter(split="val").row(0, named=True)
    picture = (shop.images / stranger["image"]).read_bytes()
    title = "Solveig aurora nightlight"
    item = Item("new-product", title, category=tuple(stranger["category"]), price=25.0)
    await client.add_items([item], {"new-product": picture})
    found = await client.search(title, picture, k=3)
    await _print_answer(client, f'added "{title}", then searched for it', found)


async def _print_answer(client: "AsyncClient", title: str, answer: "Answer") -> None:
    stored = await client.get_items([one.item_id for one in answer.results])
    print_answer(title, answer.results, [item.title for item in stored.items])
