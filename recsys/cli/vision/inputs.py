"""What the commands are given: their arguments, and the pictures and tower that these name."""

from collections.abc import Iterable, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from recsys.cli.output import progress_bar
from recsys.errors import InvalidArgumentError

if TYPE_CHECKING:
    from recsys.config import TrainConfig
    from recsys.training.samples import PictureSamples
    from vision.tower import VisionTower

BundleFolder = Annotated[Path, typer.Argument(help="A bundle, or a folder of bundles.")]
Config = Annotated[Path, typer.Argument(help="Configuration of the shop.")]
Target = Annotated[
    str | None, typer.Option(help="Such as attribute_colour; the finest category if unset.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

Pictures = TypeVar("Pictures", bound=Sized)


def load_tower(bundle: Path, settings: "TrainConfig") -> "VisionTower":
    """Return a bundle's tower on the device that the configuration wants."""
    from recsys import Bundle
    from vision.device import resolve_device

    return Bundle(bundle).vision.to(resolve_device(settings.device))


def load_samples(settings: "TrainConfig", *, progress: bool) -> "PictureSamples":
    """Return a shop's pictures, by what they are for, with their labels."""
    from recsys.pipeline import load_tables
    from recsys.training.samples import label_pictures, picture_samples

    with progress_bar(visible=progress) as advance:
        dataset = load_tables(settings, progress=advance)
    return picture_samples(dataset, label_pictures(dataset))


def finest(targets: Iterable[str]) -> str:
    """Return the finest category level; the last target where there are no categories.

    The last target of a shop is often the product itself, of which there are few pictures each.
    """
    names = list(targets)
    categories = [name for name in names if name.startswith("category_")]
    return (categories or names)[-1]


def required(pictures: Pictures | None, config: Path, wanted: str) -> Pictures:
    """Return the pictures.

    Raises:
        InvalidArgumentError: If there are none.
    """
    if not pictures:
        raise InvalidArgumentError(f"{config} must have {wanted}, got none")
    return pictures


def check_suffix(out: Path, *known: str) -> None:
    """Do nothing if the file's name ends in one of the suffixes.

    Raises:
        InvalidArgumentError: If it does not.
    """
    if out.suffix not in known:
        raise InvalidArgumentError(f"out must end in {' or '.join(known)}, got {out.name!r}")
