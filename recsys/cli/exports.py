"""Commands that write what a service was sent as tables for the next training."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli.options import BundlePath, Json, check_suffix, with_options
from recsys.cli.output import console, print_json
from recsys.data.files import make_folder

if TYPE_CHECKING:
    from serving.config import ServiceConfig


def build_events_app() -> typer.Typer:
    """Return the commands under ``recsys events``."""
    app = typer.Typer(help="Export the events that a service recorded.", no_args_is_help=True)
    app.callback()(lambda: None)  # or typer would take the one command for the whole app
    app.command("export")(export_events)
    return app


def build_items_app() -> typer.Typer:
    """Return the commands under ``recsys items``."""
    app = typer.Typer(help="Export the catalogue that a service serves.", no_args_is_help=True)
    app.callback()(lambda: None)
    app.command("export")(export_items)
    return app


@dataclass(frozen=True)
class StateOptions:
    """Options that name the state of a service, as those of ``recsys serve`` do."""

    redis: Annotated[
        str | None,
        typer.Option(help="Redis of the service: embedded, or a URL; RECSYS_REDIS if unset."),
    ] = None
    state: Annotated[
        Path | None,
        typer.Option(help="Folder of the embedded Redis; RECSYS_STATE if unset."),
    ] = None

    def config(self) -> "ServiceConfig":
        """Return the settings of a service with these options in this environment."""
        from serving.config import build_config

        return build_config(os.environ, redis=self.redis, state=self.state)


@with_options
def export_events(
    service: StateOptions,
    out: Annotated[Path, typer.Option(help="Folder of events tables, to which one file is added.")],
    takes_over: Annotated[
        bool,
        typer.Option(
            help="Write here what an export into another folder did not finish, which may have "
            "written it as well."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Write the events since the last export as an events table for the next training."""
    from serving.state.event_export import Exported
    from serving.state.event_export import export_events as write
    from serving.state.opened import opened_redis

    config = service.config()
    make_folder(out)

    async def run() -> Exported:
        async with opened_redis(config) as connection:
            return await write(connection, out, namespace=config.namespace, takes_over=takes_over)

    exported = asyncio.run(run())
    if as_json:
        print_json(exported._asdict())
        return
    if exported.file is None:
        console.print("no new events")
        return
    console.print(f"{exported.n_events:,} events in {exported.file}", highlight=False)
    if exported.n_unreadable:
        console.print(f"{exported.n_unreadable:,} could not be read and are left out")
    if exported.n_lost:
        console.print(
            f"{exported.n_lost:,} events were lost: they left the full log before this export; "
            "export more often, or raise RECSYS_EVENT_LOG_EVENTS",
            style="bold red",
        )


@with_options
def export_items(
    bundle: BundlePath,
    service: StateOptions,
    out: Annotated[Path, typer.Option(help="Items table to write: a Parquet file.")],
    images_root: Annotated[
        Path | None,
        typer.Option(
            help="Folder that image paths are relative to, and that gets the pictures that callers "
            "sent; the folder of the table if unset."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the served catalogue, the bundle's items with all live changes, as an items table."""
    check_suffix(out, ".parquet")
    make_folder(out.parent)

    from recsys.bundle import Bundle
    from serving.state.item_export import ExportedItems
    from serving.state.item_export import export_items as write
    from serving.state.opened import opened_redis

    config, served = service.config(), Bundle(bundle)

    async def run() -> ExportedItems:
        async with opened_redis(config) as connection:
            return await write(
                served,
                connection,
                out,
                images_root=images_root or out.parent,
                namespace=config.namespace,
            )

    exported = asyncio.run(run())
    if as_json:
        print_json({**exported._asdict(), "bundle_version": served.version})
        return
    console.print(
        f"{exported.n_items:,} items in {out}: {exported.n_changed:,} changed or new with "
        f"{exported.n_pictures:,} new pictures, {exported.n_deleted:,} deleted",
        highlight=False,
    )
