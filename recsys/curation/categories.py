"""Add a category to a bundle from a few pictures, without training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recsys.answers import read_path
from recsys.bundle import Bundle, replace_vision
from recsys.catalogue.embedder import check_device
from recsys.data.arrays import Floats
from recsys.errors import InvalidArgumentError, InvalidImageError, MissingPartError
from recsys.identification.annotation import CATEGORY
from recsys.training.tower_errors import translate_tower_errors
from vision.batches import ImageSource
from vision.errors import ImageError
from vision.hierarchy import SEPARATOR
from vision.labelling.imprinting import compute_features, with_class
from vision.tower import VisionTower


@dataclass(frozen=True)
class NewCategory:
    """A category that was added to a bundle.

    Args:
        bundle: Folder of the new bundle.
        category: Path of the category, coarse to fine.
        n_pictures: Number of pictures that it was made from.
    """

    bundle: Path
    category: tuple[str, ...]
    n_pictures: int


@translate_tower_errors()
def add_category(
    bundle: str | Path | Bundle,
    name: str | Sequence[str],
    pictures: Sequence[ImageSource],
    *,
    device: str = "cpu",
) -> NewCategory:
    """Seal a bundle beside the old one that also knows a category, and make it the latest.

    >>> add_category("runs/shop", "Home > Vases", [Path("vase1.jpg"), Path("vase2.jpg")])

    The vision tower's heads get a row for each level of the path that is new, as described in
    ``vision.labelling.imprinting``; everything else is copied. Training again starts from the
    tables, so pictures of a category that is to stay belong into the photos table.

    Args:
        bundle: Bundle, or its folder, or a folder of bundles, whose latest is taken.
        name: Path of the category, or its text form such as "Home > Vases".
        pictures: Pictures of the category as paths, bytes of files or opened images. One is
            enough; a few more are better.
        device: Device of the tower.

    Raises:
        InvalidArgumentError: If ``pictures`` is empty, the category is known, or its path is
            longer than those that the tower learned.
        InvalidImageError: If a picture is not a readable image; the message names it.
        MissingPartError: If the bundle has no vision tower, the tower learned no categories, or
            training had no photos of val.
        TrainingError: If the photos of val are too few to set the scale of probabilities.
    """
    old = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
    path, pictures = read_path(name), list(pictures)
    tower, heads = old.vision, old.heads
    added = new_levels(tower.classes, path)
    if not pictures:
        raise InvalidArgumentError(
            f"pictures of {SEPARATOR.join(path)!r} must be one or more, got none"
        )
    shots = _see(tower, pictures, check_device(device))
    for target, level in added.items():
        temperature = heads.reading.temperatures.get(target, 1.0)
        tower = with_class(
            tower, target, level, shots, heads.reference(target), temperature=temperature
        )
    folder = replace_vision(
        old.path,
        tower.cpu(),
        old.path.parent,
        grown=dict.fromkeys(added, 1),
        note={"category": list(path), "pictures": len(pictures)},
    )
    return NewCategory(folder, path, len(pictures))


def new_levels(classes: Mapping[str, Sequence[str]], path: tuple[str, ...]) -> dict[str, str]:
    """Return the name of the class that each level of a new category's path adds, by target.

    Args:
        classes: Class names of every target of the vision tower.
        path: Path of the category, coarse to fine.

    Raises:
        InvalidArgumentError: If the path is empty, known already, or too long.
        MissingPartError: If no target is a level of categories.
    """
    levels = [target for target in classes if target.startswith(CATEGORY)]
    if not levels:
        raise MissingPartError(
            "the vision tower of this bundle learned no categories, so none can be added; train "
            "again with categories in the items or photos table"
        )
    # A level with a single class taught the tower nothing, so it is no target.
    names = {
        f"{CATEGORY}{depth}": SEPARATOR.join(path[:depth]) for depth in range(1, len(path) + 1)
    }
    if not path or next(reversed(names)) not in classes:
        deepest = max(int(target.removeprefix(CATEGORY)) for target in levels)
        raise InvalidArgumentError(
            f"name must be a path of 1 to {deepest} levels, as the tower learned them, got "
            f"{SEPARATOR.join(path)!r}"
        )
    wanted = {target: name for target, name in names.items() if target in classes}
    added = {target: name for target, name in wanted.items() if name not in classes[target]}
    if not added:
        raise InvalidArgumentError(
            f"name must be a new category, got {SEPARATOR.join(path)!r}, which the bundle has"
        )
    return added


def _see(tower: VisionTower, pictures: Sequence[ImageSource], device: str) -> Floats:
    """Return the features of pictures; an error names the file where there is one."""
    try:
        return compute_features(tower, pictures, device=device)
    except ImageError as error:
        position = error.position or 0
        picture = pictures[position]
        which = str(picture) if isinstance(picture, Path) else f"image {position}"
        raise InvalidImageError(f"{which}: {error.__cause__}") from error
