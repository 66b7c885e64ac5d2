"""Arguments and options that several commands share."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from recsys.errors import FileAccessError, InvalidArgumentError, InvalidImageError

BundlePath = Annotated[
    Path, typer.Argument(help="Folder of a bundle, or of several bundles (the latest is used).")
]
Config = Annotated[Path, typer.Argument(help="Configuration file of the shop, in TOML.")]
ImagesRoot = Annotated[
    Path | None,
    typer.Option(help="Folder that image paths are relative to; the table's folder if unset."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


class DashedArguments(TyperCommand):
    """A command with an argument that may begin with a dash, as ids and words may."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Return what is left to parse; the error for an unknown option says what to write."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            wrong: Any = error
            # Of the error's class, typer has a copy of its own from some release on.
            if type(error).__name__ == "NoSuchOption":
                wrong.message += "; an argument that begins with - is written after --"
            raise


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with one option for each field of its dataclass parameters.

    It keeps a command with many options readable, as in::

        @dataclass(frozen=True)
        class Prices:
            price_min: Annotated[float | None, typer.Option(help="Lowest price.")] = None
            price_max: Annotated[float | None, typer.Option(help="Highest price.")] = None

        @with_options
        def search(text: str, prices: Prices) -> None: ...

    Args:
        command: Function for typer. The fields of a dataclass take the place of its parameter.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if is_dataclass(parameter.annotation)
    }
    flat: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        own = _options(groups[name]) if name in groups else [parameter]
        flat += [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]

    @wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    shown: Any = run  # typer reads the signature and the annotations
    shown.__signature__ = signature.replace(parameters=flat)
    shown.__annotations__ = {one.name: one.annotation for one in flat}
    return run


def _options(group: Any) -> list[inspect.Parameter]:
    """Return the fields of a dataclass as parameters."""
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]


def read_file(path: Path) -> bytes:
    """Return the bytes of a file that was named on the command line.

    Raises:
        FileAccessError: If the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileAccessError(f"{path} cannot be read: {error.strerror}") from error


@contextmanager
def naming_image(path: Path | None) -> Iterator[None]:
    """Name the file in the error about the only image of a command, in place of its index.

    Raises:
        InvalidImageError: If the body raises one.
    """
    try:
        yield
    except InvalidImageError as error:
        raise InvalidImageError(f"{path}: {str(error).removeprefix('image 0: ')}") from error


def check_suffix(out: Path, *known: str) -> None:
    """Raise unless the name of a file to write ends in one of the suffixes.

    Raises:
        InvalidArgumentError: If it does not; the message has the suffixes.
    """
    if out.suffix not in known:
        raise InvalidArgumentError(f"out must end in {' or '.join(known)}, got {out.name!r}")
