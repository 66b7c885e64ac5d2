"""Load the pictures and the tower that the vision commands work on."""

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

Target = Annotated[
    str | None,
    typer.Option(help="Target, such as attribute_colour; the finest category level if unset."),
]

Pictures = TypeVar("Pictures", bound=Sized)


def load_tower(bundle: Path, settings: "TrainConfig") -> "VisionTower":
    """Return the vision tower of a bundle, on the device of the configuration."""
    from recsys import Bundle
    from vision.device import resolve_device

    return Bundle(bundle).vision.to(resolve_device(settings.device))


def load_samples(settings: "TrainConfig", *, progress: bool) -> "PictureSamples":
    """Return the labelled pictures of a shop, by split."""
    from recsys.pipeline import load_tables
    from recsys.training.samples import label_pictures, picture_samples

    with progress_bar(visible=progress) as advance:
        dataset = load_tables(settings, progress=advance)
    return picture_samples(dataset, label_pictures(dataset))


def finest(targets: Iterable[str]) -> str:
    """Return the finest category level, or the last target of a shop without categories.

    The last of all targets is often the product itself, with few pictures for each.
    """
    names = list(targets)
    categories = [name for name in names if name.startswith("category_")]
    return (categories or names)[-1]


def required(pictures: Pictures | None, config: Path, wanted: str) -> Pictures:
    """Return the pictures.

    Raises:
        InvalidArgumentError: If the pictures are None or empty.
    """
    if not pictures:
        raise InvalidArgumentError(f"{config} must have {wanted}, got none")
    return pictures
