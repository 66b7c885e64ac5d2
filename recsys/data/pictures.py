"""Check that picture paths name readable pictures inside the images root."""

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PureWindowsPath
from typing import Literal, NamedTuple

import polars as pl

from recsys.data.nearest_files import NearestFiles, same_path
from recsys.data.progress import Progress
from recsys.data.quarantine import Loaded, add_failures
from recsys.errors import DataError
from vision.images import ImageError, load

CheckImage = Callable[[Path], str | None]  # says why a file cannot be decoded, None if it can
PictureRule = Literal["image|inside_root", "image|exists", "image|decodes"]


class Broken(NamedTuple):
    """What is wrong with a picture of a table."""

    rule: PictureRule
    reason: str | None  # why it cannot be decoded, or which file was probably meant


class CheckedPictures(NamedTuple):
    """The outcome of checking the pictures of a table."""

    broken: dict[str, Broken]
    renamed: dict[str, str]  # names whose file is written otherwise: ./a.png, or Unicode's NFD


def picture_fault(path: Path) -> str | None:
    """Return why training cannot read a file as a picture; None if it can.

    All of the file is decoded, a JPEG at an eighth of its size, which reads every byte of it and
    takes a quarter of the time.
    """
    try:
        load(path, min_side=1)
    except ImageError as error:
        # The cause is without the path, and the rule says that it cannot be decoded.
        return str(error.__cause__ or error).removeprefix("image cannot be decoded: ")
    return None


def broken_rule(name: str, root: Path) -> PictureRule | None:
    """Return the rule that a path breaks, None if it names a file inside the root.

    Absolute paths and paths with ``..`` are refused on every system, also with the slashes of
    Windows. Paths that leave the root through a symbolic link are refused as well.

    Args:
        name: Path relative to ``root``, as the table has it.
        root: Images root, with links resolved.
    """
    pure = PureWindowsPath(name)  # understands both kinds of slash
    if "\0" in name or pure.root or pure.is_absolute() or ".." in pure.parts:
        return "image|inside_root"
    # pathlib would raise on a loop of links and on a name that is too long.
    path = Path(os.path.realpath(root / name))
    if not path.is_relative_to(root):
        return "image|inside_root"
    return None if os.path.isfile(path) else "image|exists"


def check_pictures(
    names: Iterable[str],
    root: Path | None,
    *,
    check_image: CheckImage | None,
    progress: Progress | None,
) -> CheckedPictures:
    """Return what is wrong with each bad picture; good pictures are left out.

    A name in another form of Unicode than its file (NFC, NFD), or with ``./``, is the file's. For
    any other wrong name, the reason has the nearest file.

    Args:
        names: Distinct paths relative to ``root``.
        root: Images root; None if no picture can be found.
        check_image: Function that says why a file cannot be decoded, called from several threads.
            None checks that the files exist.
        progress: Function called after each picture.

    Raises:
        DataError: If a picture is named and ``root`` is not a folder.
    """
    names = list(names)
    checked = CheckedPictures({}, {})
    if not names:
        return checked
    if root is None or not root.is_dir():
        raise DataError(f"images_root must be the folder of {names[0]!r}, got {root}")
    resolved = root.resolve()
    files = NearestFiles(resolved)

    def check(name: str) -> tuple[str, Broken | None]:
        rule = broken_rule(name, resolved)
        nearest = files.find(name) if rule is not None else None
        if rule == "image|exists" and nearest and same_path(os.path.normpath(name), nearest):
            name, rule = nearest, None
        if rule is not None:
            return name, Broken(rule, nearest and f"did you mean {nearest!r}?")
        name = os.path.normpath(name)  # one file has one name
        reason = check_image(resolved / name) if check_image is not None else None
        return name, Broken("image|decodes", reason) if reason is not None else None

    with ThreadPoolExecutor() as pool:  # decoding releases the GIL
        results = pool.map(check, names)
        for done, (name, (file, broken)) in enumerate(zip(names, results, strict=True), start=1):
            if broken is not None:
                checked.broken[name] = broken
            elif file != name:
                checked.renamed[name] = file
            if progress is not None:
                progress("pictures", done, len(names))
    return checked


def failures_with(loaded: Loaded, broken: Mapping[str, Broken], *, kept: bool) -> pl.DataFrame:
    """Return the failures of a table and those of its pictures, in row order.

    Args:
        loaded: Valid rows of a table, and its report.
        broken: What is wrong with each bad picture.
        kept: Whether rows are used without their picture.
    """
    columns = {
        "image": list(broken),
        "rule": [one.rule for one in broken.values()],
        "reason": [one.reason for one in broken.values()],
    }
    pictures = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))
    rows = loaded.frame.join(pictures, on="image").with_columns(got="image")
    return add_failures(loaded.report.failures, rows, kept=kept)
