"""Commands that exchange the bundle of a running service."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli.live import ServiceOptions
from recsys.cli.options import Json, with_options
from recsys.cli.output import console, print_json, print_rows

if TYPE_CHECKING:
    from serving.client import AdminClient, Bundles

MISMATCH_P = 0.001

Version = Annotated[
    str, typer.Argument(metavar="VERSION", help="Version of the bundle; the latest if left out.")
]


def build_app() -> typer.Typer:
    """Return the commands under ``recsys admin``."""
    app = typer.Typer(help="Exchange the bundle of a running service.", no_args_is_help=True)
    app.command("status")(status)
    app.command("swap")(swap)
    app.command("rollback")(rollback)
    app.command("load")(load)
    app.command("unload")(unload)
    return app


@with_options
def status(service: ServiceOptions, as_json: Json = False) -> None:
    """Show which bundles a service has open, and how users are divided between them."""
    _run(service, lambda client: client.bundles(), as_json=as_json)


@with_options
def swap(service: ServiceOptions, version: Version = "", as_json: Json = False) -> None:
    """Serve another bundle of the folder; if it cannot be served, nothing changes."""
    _run(service, lambda client: client.swap(version), as_json=as_json)


@with_options
def rollback(service: ServiceOptions, as_json: Json = False) -> None:
    """Serve the bundle again that was served before."""
    _run(service, lambda client: client.roll_back(), as_json=as_json)


@with_options
def load(
    service: ServiceOptions,
    version: Version = "",
    share: Annotated[
        float, typer.Option(help="Share of the users that the bundle answers, 0 to 1.")
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """Open a bundle beside the served one, and let it answer a share of the users."""
    _run(service, lambda client: client.load(version, share=share), as_json=as_json)


@with_options
def unload(service: ServiceOptions, as_json: Json = False) -> None:
    """Close the bundle that was opened beside the served one."""
    _run(service, lambda client: client.unload(), as_json=as_json)


def _run(
    service: ServiceOptions, call: "Callable[[AdminClient], Bundles]", *, as_json: bool
) -> None:
    with service.admin() as client:
        bundles = call(client)
    if as_json:
        print_json(asdict(bundles))
        return
    rows = [("served", bundles.served_version), ("before it", bundles.previous_version)]
    rows.append(("loaded beside it", bundles.loaded_version))
    print_rows(service.address, ("bundle", "version"), [row for row in rows if row[1]])
    if bundles.arms:
        print_rows(
            "users",
            ("bundle", "share", "users"),
            [(one.bundle_version, f"{one.share:g}", f"{one.users:,}") for one in bundles.arms],
        )
    if bundles.sample_ratio_p is not None and bundles.sample_ratio_p < MISMATCH_P:
        console.print(
            f"the users do not fit the shares (p = {bundles.sample_ratio_p:.2g}): do not compare "
            "results before the reason is known"
        )
