"""Commands that list and forget what callers of a service changed of its catalogue."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from recsys.cli.options import DashedArguments, Json, read_file, with_options
from recsys.cli.output import console, print_json, print_rows
from recsys.errors import ConfigError, InvalidArgumentError

if TYPE_CHECKING:
    from serving.client import AdminClient, Client, LiveItem

TOKEN = "RECSYS_TOKEN"  # noqa: S105 - the name of a variable
IDS_AT_ONCE = 1_000


def build_app() -> typer.Typer:
    """Return the commands under ``recsys live``."""
    app = typer.Typer(
        help="List and forget what callers of a service changed of its catalogue.",
        no_args_is_help=True,
    )
    app.command("list")(list_items)
    app.command("forget", cls=DashedArguments)(forget)
    return app


@dataclass(frozen=True)
class ServiceOptions:
    """Options that name a running service."""

    address: Annotated[str, typer.Option(help="Address of the service, as host:port.")] = (
        "127.0.0.1:50051"
    )
    token_file: Annotated[
        Path | None,
        typer.Option(help=f"File with the service's token; unset takes the variable {TOKEN}."),
    ] = None
    certificate: Annotated[
        Path | None,
        typer.Option(help="PEM file to trust; unset calls a service without TLS."),
    ] = None
    identity: Annotated[
        Path | None,
        typer.Option(help="PEM file with your own certificate and key, if the service wants one."),
    ] = None
    timeout_s: Annotated[float, typer.Option(help="Longest wait for an answer, in seconds.")] = 60.0

    @contextmanager
    def client(self) -> "Iterator[Client]":
        """Yield a client of the service."""
        from serving.client import Client

        with Client(self.address, **self._connection()) as client:
            yield client

    @contextmanager
    def admin(self) -> "Iterator[AdminClient]":
        """Yield a client for operators of the service."""
        from serving.client import AdminClient

        with AdminClient(self.address, **self._connection()) as client:
            yield client

    def _connection(self) -> dict[str, Any]:
        return {
            "token": self._token(),
            "certificate": self.certificate,
            "identity": self.identity,
            "timeout_s": self.timeout_s,
        }

    def _token(self) -> str | None:
        """Return the token; it is no option, for the arguments of a process are seen by others."""
        if self.token_file is None:
            return os.environ.get(TOKEN)
        token = read_file(self.token_file).decode(errors="replace").strip()
        if not token:
            raise ConfigError(f"token file {self.token_file} must hold a token, but is empty")
        return token


@with_options
def list_items(service: ServiceOptions, as_json: Json = False) -> None:
    """List the live records of the catalogue, and which changes the bundle's table supersedes."""
    items: list[LiveItem] = []
    with service.client() as client:
        page = client.list_live_items(page_size=IDS_AT_ONCE)
        items += page.items
        while page.next_page_token:
            page = client.list_live_items(page.next_page_token, page_size=IDS_AT_ONCE)
            items += page.items
    items = sorted({item.item_id: item for item in items}.values(), key=lambda one: one.item_id)
    if as_json:
        print_json(
            {"bundle_version": page.bundle_version, "items": [asdict(item) for item in items]}
        )
        return
    n_counting = sum(item.counts for item in items)
    print_rows(
        f"bundle {page.bundle_version}: {len(items):,} live records, {n_counting:,} count",
        ("item", "written", "on bundle", "counts", "superseded by the table"),
        [_row(item) for item in items],
    )


@with_options
def forget(
    service: ServiceOptions,
    item_ids: Annotated[
        list[str] | None, typer.Argument(metavar="ITEM_ID...", help="Ids of the items.")
    ] = None,
    superseded: Annotated[
        bool, typer.Option(help="Forget the records of which the bundle's table supersedes all.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Forget every live record.")] = False,
    as_json: Json = False,
) -> None:
    """Remove live records and their pictures: items are served as the bundle has them."""
    chosen: list[Sequence[str] | Literal["superseded", "all"]] = [
        *(["superseded"] if superseded else []),
        *(["all"] if everything else []),
    ]
    ids = list(dict.fromkeys(item_ids or ()))
    if len(chosen) + bool(ids) != 1:
        raise InvalidArgumentError("name items, or give --superseded or --all: one of the three")
    chosen += [ids[start : start + IDS_AT_ONCE] for start in range(0, len(ids), IDS_AT_ONCE)]
    with service.client() as client:
        answers = [client.forget_live_items(which) for which in chosen]
    forgotten = sum(answer.forgotten for answer in answers)
    if as_json:
        print_json({"bundle_version": answers[-1].bundle_version, "forgotten": forgotten})
        return
    console.print(f"{forgotten:,} live records forgotten")


def _row(item: "LiveItem") -> tuple[str, ...]:
    if item.deleted:
        changes = [("deleted", item.counts)]
    else:
        changes = [(field.name, field.counts) for field in item.fields]
    return (
        item.item_id,
        f"{item.written_at:%Y-%m-%d %H:%M:%S} UTC" if item.written_at else "earlier release",
        item.bundle_version,
        ", ".join(name for name, counts in changes if counts),
        ", ".join(name for name, counts in changes if not counts),
    )
