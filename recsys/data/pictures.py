"""Check that picture paths name readable pictures inside the images root."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PureWindowsPath
from typing import Literal

from recsys.data.progress import Progress
from recsys.errors import DataError

CheckImage = Callable[[Path], bool]
PictureRule = Literal["image|inside_root", "image|exists", "image|decodes"]


def broken_rule(name: str, root: Path, check_image: CheckImage | None) -> PictureRule | None:
    """Return the rule that a picture path breaks, None if it breaks no rule.

    Absolute paths and paths with ``..`` are refused on every system, also with the slashes of
    Windows. Paths that leave the root through a symbolic link are refused as well.

    Args:
        name: Path relative to ``root``, as the table has it.
        root: Images root, with links resolved.
        check_image: Function that says whether a file can be decoded. None checks that it exists.
    """
    pure = PureWindowsPath(name)  # understands both kinds of slash
    if "\0" in name or pure.root or pure.is_absolute() or ".." in pure.parts:
        return "image|inside_root"
    # pathlib would raise on a loop of links and on a name that is too long.
    path = Path(os.path.realpath(root / name))
    if not path.is_relative_to(root):
        return "image|inside_root"
    if not os.path.isfile(path):
        return "image|exists"
    if check_image is not None and not check_image(path):
        return "image|decodes"
    return None


def broken_pictures(
    names: Iterable[str],
    root: Path | None,
    *,
    check_image: CheckImage | None,
    progress: Progress | None,
) -> dict[str, PictureRule]:
    """Return the rule that each bad picture breaks; good pictures are left out.

    Args:
        names: Distinct paths relative to ``root``.
        root: Images root; None if no picture can be found.
        check_image: Function that says whether a file can be decoded, called from several threads.
        progress: Function called after each picture.

    Raises:
        DataError: If a picture is named and ``root`` is not a folder.
    """
    names = list(names)
    if not names:
        return {}
    if root is None or not root.is_dir():
        raise DataError(f"images_root must be the folder of {names[0]!r}, got {root}")
    resolved = root.resolve()
    broken: dict[str, PictureRule] = {}
    with ThreadPoolExecutor() as pool:  # decoding releases the GIL
        rules = pool.map(lambda name: broken_rule(name, resolved, check_image), names)
        for done, (name, rule) in enumerate(zip(names, rules, strict=True), start=1):
            if rule is not None:
                broken[name] = rule
            if progress is not None:
                progress("pictures", done, len(names))
    return broken
