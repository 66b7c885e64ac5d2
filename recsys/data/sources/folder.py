"""A folder of pictures, with a folder for each class, as the photos table."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import polars as pl

from recsys.data.loading import load_photos
from recsys.data.pictures import picture_fault
from recsys.data.progress import Progress
from recsys.data.quarantine import TableReport
from recsys.data.sources.archive import Original, collect_pictures
from recsys.data.sources.staging import Imported, staging, write_tables
from recsys.data.tables import reading
from recsys.errors import DataError, InvalidArgumentError
from recsys.schema import SPLITS
from vision.hierarchy import SEPARATOR

PICTURES = "images"
SPLIT_OF = {"training": "train", "valid": "val", "validation": "val", "testing": "test"} | {
    split: split for split in SPLITS
}
HELD_OUT_FROM = 5  # distinct pictures; a class with fewer needs all of them to learn from


def import_folder(src: Path, out: Path, *, progress: Progress | None = None) -> Imported:
    """Write the pictures of a folder as a photos table; the folders are their categories.

    ``src/Fruit/Apple/1.jpg`` is a photo of the category [Fruit, Apple]. If the folders of ``src``
    are ``train``, ``val`` and ``test``, or some of these, they are the splits, as in torchvision's
    ImageFolder. Without ``val``, a tenth of each class's training pictures becomes ``val``, and
    another tenth ``test`` if that is missing as well, chosen by the hash of their bytes.

    Hidden files and folders are ignored. Links to folders are not followed, and links that lead
    out of ``src`` are left out, as are files that are no pictures: each is counted in the notes,
    and has its reason in ``photos.quarantine.parquet``.

    Args:
        src: Folder with a folder of pictures for each class.
        out: Folder to make; it gets ``photos.parquet`` and the pictures, in ``images``.
        progress: Function called while pictures are checked and copied.

    Raises:
        DataError: If ``src`` is not such a folder, has no picture, mixes splits with classes, or
            has a name that is not UTF-8.
        InvalidArgumentError: If ``out`` is in use, or inside ``src``.
    """
    if out.resolve().is_relative_to(src.resolve()):
        raise InvalidArgumentError(f"out must lie outside of {src}, got {out}")
    with staging(out) as scratch:
        names = _list_files(src)
        loaded = load_photos(
            pl.DataFrame({"image": names}),
            pl.Series("item_id", [], dtype=pl.String),
            images_root=src,
            check_image=picture_fault,
            progress=progress,
        )
        if not len(loaded.frame):
            reasons = "\n  ".join(loaded.report.lines())
            raise DataError(f"{src} must have pictures, but no file can be used\n  {reasons}")
        photos = _label(src, loaded.frame["image"].to_list())
        collect_pictures(
            Original(src, ours=False), photos["image"], scratch / PICTURES, progress=progress
        )
        if len(loaded.report.failures):
            loaded.report.failures.write_parquet(scratch / "photos.quarantine.parquet")
        table = photos.with_columns(image=pl.format(f"{PICTURES}/{{}}", "image"))
        imported = write_tables(scratch, out, photos=table.drop("digest"))
        return imported._replace(notes=_notes(photos, loaded.report, out))


def _list_files(src: Path) -> list[str]:
    """Return the paths of all files, relative to ``src``; a link to a folder counts as a file."""
    if not src.is_dir():
        raise DataError(
            f"src must be a folder with a folder of pictures for each class, got {src}; unpack an "
            "archive first"
        )
    with reading(src):
        names = list(_walk(src, ""))
    if not names:
        raise DataError(
            f"{src} must have pictures, in a folder for each class, but it is empty apart from "
            "hidden files"
        )
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"names of files must be UTF-8, got {os.fsencode(name)!r}; rename it"
            ) from error
    return names


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    for entry in sorted(os.scandir(folder), key=lambda one: one.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(folder / entry.name, f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}"


def _label(src: Path, images: Sequence[str]) -> pl.DataFrame:
    """Return the photos with their category, split and ``digest``, the hash of their bytes."""
    folders = [PurePosixPath(image).parts[:-1] for image in images]
    named = _split_folders(src, folders)
    splits = [named.get(parts[0], "train") if parts else "train" for parts in folders]
    paths = [parts[1:] if parts and parts[0] in named else parts for parts in folders]
    for path in paths:
        if any(SEPARATOR in name for name in path):
            raise DataError(
                f"names of classes must not have {SEPARATOR!r}, which is written between the "
                f"levels of a category, got {'/'.join(path)!r}; rename the folder"
            )
    digests = [_digest(src / image) for image in images]
    wanted = {*named.values()} - {"train"}
    missing = () if "val" in wanted else ("val",) if "test" in wanted else ("val", "test")
    rows_of: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row, path in enumerate(paths):
        if path and splits[row] == "train":
            rows_of[path].append(row)
    for rows in rows_of.values():
        held_out = hold_out([digests[row] for row in rows], missing)
        for row in rows:
            splits[row] = held_out.get(digests[row], "train")
    return pl.DataFrame(
        {"image": images, "category": paths, "split": splits, "digest": digests},
        schema_overrides={"category": pl.List(pl.String)},
    )


def _split_folders(src: Path, folders: Sequence[tuple[str, ...]]) -> Mapping[str, str]:
    """Return the split of each folder that is one; empty if the folders are classes."""
    first, second = ({parts[n] for parts in folders if len(parts) > n} for n in (0, 1))
    named = {name: SPLIT_OF[name.lower()] for name in first if name.lower() in SPLIT_OF}
    if named and len(named) == len(first):
        if "train" not in named.values():
            raise DataError(f"{src} must have a folder train beside {', '.join(sorted(named))}")
        return named
    for found in (first, second):
        splits = sorted(name for name in found if name.lower() in SPLIT_OF)
        if len(splits) > 1:
            raise DataError(
                f"{src} must have either splits or classes as its folders, got "
                f"{', '.join(sorted(first)[:5])} and the splits {', '.join(splits)}; name the "
                "folder of the splits as src, with nothing else in it"
            )
    return {}


def hold_out(digests: Sequence[str], splits: Sequence[str]) -> dict[str, str]:
    """Return the split of the pictures of a class that are held out, by their digest.

    Each split gets a tenth of the distinct pictures, rounded, and at least one. Equal pictures are
    in one split, and another order or other names of the files change nothing.

    Args:
        digests: Hash of each picture's bytes.
        splits: Names of the splits to fill.
    """
    distinct = sorted({*digests})
    if len(distinct) < HELD_OUT_FROM:
        return {}
    share = max(1, round(len(distinct) / 10))
    return {
        digest: split
        for number, split in enumerate(splits)
        for digest in distinct[number * share : (number + 1) * share]
    }


def _digest(path: Path) -> str:
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _notes(photos: pl.DataFrame, report: TableReport, out: Path) -> tuple[str, ...]:
    """Return what an importer should know: what was left out, and what spoils the figures."""
    notes = report.lines()
    if notes:
        notes.append(f"rows that broke a rule: {out / 'photos.quarantine.parquet'}")
    classes = Counter(" > ".join(path) for path in photos["category"].to_list() if path)
    few = [name for name, count in classes.items() if count < HELD_OUT_FROM]
    if few:
        notes.append(
            f"{len(few):,} of {len(classes):,} classes have fewer than {HELD_OUT_FROM} pictures, "
            f"such as {few[0]!r}"
        )
    for column, what in (("split", "splits"), ("category", "classes")):
        twice = photos.group_by("digest", maintain_order=True).agg(
            pl.col(column).n_unique().alias("count"), pl.col("image").first()
        )
        found = twice.filter(pl.col("count") > 1)["image"]
        if len(found):
            notes.append(
                f"{len(found):,} of {len(twice):,} different pictures are in several {what}, such "
                f"as {found[0]!r}; remove the copies, or the figures of test photos mean little"
            )
    return tuple(notes)
