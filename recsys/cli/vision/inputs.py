"""Load the vision tower and the labelled pictures that the commands work on."""

from collections.abc import Iterable, Mapping, Sized
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from recsys.cli.output import progress_bar
from recsys.errors import InvalidArgumentError

if TYPE_CHECKING:
    from recsys.config import TrainConfig
    from recsys.training.samples import PictureSamples
    from vision.dataset import Samples
    from vision.tower import VisionTower

Target = Annotated[
    str | None,
    typer.Option(
        help="Target of the tower, such as attribute_colour; the finest category level if unset."
    ),
]

Pictures = TypeVar("Pictures", bound=Sized)


def load_tower(bundle: Path, settings: "TrainConfig") -> "VisionTower":
    """Return a bundle's vision tower on the device of the configuration."""
    from recsys import Bundle
    from vision.device import resolve_device

    return Bundle(bundle).vision.to(resolve_device(settings.device))


def load_samples(settings: "TrainConfig", *, progress: bool) -> "PictureSamples":
    """Return a shop's labelled pictures: to train on, to validate and to test."""
    from recsys.pipeline import load_tables
    from recsys.training.samples import label_pictures, picture_samples

    with progress_bar(visible=progress) as advance:
        dataset = load_tables(settings, progress=advance)
    return picture_samples(dataset, label_pictures(dataset))


def with_added_classes(samples: "Samples", classes: Mapping[str, tuple[str, ...]]) -> "Samples":
    """Return the samples with the classes that `recsys category add` put after those of training.

    Args:
        samples: Labelled pictures of the tables.
        classes: Class names of every target of the tower. Those of a category level may be more
            than those of the samples; with any other difference the samples stay as they are.
    """
    from recsys.identification.annotation import CATEGORY

    same = list(classes) == list(samples.classes) and all(
        classes[target][: len(names) if target.startswith(CATEGORY) else None] == tuple(names)
        for target, names in samples.classes.items()
    )
    return replace(samples, classes=classes) if same else samples


def finest(targets: Iterable[str]) -> str:
    """Return the finest category level, or the last target if there are no categories.

    Categories come first because the last target is often the product itself, and most products
    have few pictures.
    """
    names = list(targets)
    categories = [name for name in names if name.startswith("category_")]
    return (categories or names)[-1]


def required(pictures: Pictures | None, config: Path, wanted: str) -> Pictures:
    """Return the pictures, after checking that there are any.

    Args:
        pictures: Pictures that a command needs.
        config: Path of the configuration, for the message.
        wanted: Description of the pictures, for the message.

    Raises:
        InvalidArgumentError: If the pictures are missing.
    """
    if not pictures:
        raise InvalidArgumentError(f"{config} must have {wanted}, got none")
    return pictures
