"""The serve command."""

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.options import BundlePath
from recsys.cli.output import console


def serve(
    bundle: BundlePath,
    redis: Annotated[
        str | None,
        typer.Option(
            help="Redis to use: embedded, or a URL (redis://, rediss://, unix://, redis+cluster://)."
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; this machine only if unset.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one.")] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="Folder of the embedded Redis; keep it when the bundle changes."),
    ] = None,
    watch: Annotated[
        bool | None,
        typer.Option("--watch", help="Serve each bundle that becomes the latest of the folder."),
    ] = None,
) -> None:
    """Serve a bundle over gRPC until stopped.

    Options that are not given are read from the environment variables RECSYS_*.
    """
    from serving.logs import configure
    from serving.rpc.server import serve as serve_forever

    serve_forever(
        bundle,
        redis=redis,
        host=host,
        port=port,
        state=state,
        watch=watch,
        on_config=lambda config: configure(config.log_format, config.log_level),
        on_ready=lambda address: console.print(f"serving {bundle} on {address}; Ctrl-C stops"),
    )
