"""Read the words on a shop's pictures and on photos of val, and decide whether they help."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recsys.catalogue.store import Catalogue
from recsys.config import IdentificationConfig
from recsys.data.arrays import Floats, Ints
from recsys.data.files import make_folder, whole_file, writing
from recsys.identification.fitting import cross_fitted_losses, take_evenly
from recsys.identification.words import WordIndex
from recsys.training.identification import Observed
from recsys.training.inputs import ShopData
from recsys.training.samples import picture_paths
from recsys.training.stages import Runtime
from vision.batches import open_picture, read_batches
from vision.words import MAX_SIDE, Lines, WordReader, can_read_words, content_key

logger = logging.getLogger(__name__)

CACHE = "words"  # folder of what was read, beside the stages
RESULT = "lines.json"
N_TRIED = 50  # photos that are read first
MIN_SHARE = 0.1  # of these, that show letters; below it nothing more is read
MIN_LETTERS = 3  # of a line that is not a smudge
BATCH_SIZE = 16  # pictures that are read again after a stop
MAX_KEPT = 200_000  # pictures whose lines are kept from one run to the next


class ReadWords(NamedTuple):
    """What was read on photos of val and on the shop's pictures."""

    photos: tuple[Lines, ...]
    pictures: Mapping[str, Lines]  # by item id; empty if there are too many pictures


class ChosenWords(NamedTuple):
    """What a calibration is fitted on, with words or without.

    Args:
        observed: Photos of val.
        pictures: Lines on the shop's pictures by item id, for the bundle; None if none were read.
        help: Whether the observations have words, since they help.
        why_not: Why words that could be read do not count; None if they do, or were not tried.
    """

    observed: Observed
    pictures: Mapping[str, Lines] | None = None
    help: bool = False
    why_not: str | None = None


def choose_words(
    shop: ShopData,
    images: Sequence[Path],
    observed: Observed,
    embeddings: Floats,
    config: IdentificationConfig,
    runtime: Runtime,
) -> ChosenWords:
    """Return what the calibration is fitted on: with words, if they make it better.

    They do if the photos get a likelihood that is higher by more than its standard error, with
    weights that were fitted on other products.

    Args:
        shop: The shop's tables.
        images: Files of the labelled photos.
        observed: What the other sources say of the photos of val.
        embeddings: Item embeddings of the shop (N, D).
        config: Settings of identification.
        runtime: How to run the stage "words".
    """
    if config.words == "off" or not can_read_words():
        return ChosenWords(observed)  # ``why_left_out`` has said so
    n_photos = len(observed.positions)
    some = observed.take(_evenly(n_photos, config.max_read))
    read = _read_stage(shop, [images[n] for n in some.positions], config, runtime)
    if isinstance(read, str):
        return ChosenWords(observed, why_not=read)
    catalogue = Catalogue(shop.dataset.items, embeddings)
    with_words = some.with_words(WordIndex(catalogue, read.pictures).scores(read.photos))
    before, after = (
        cross_fitted_losses(
            each.evidence, each.rows, unknown_share=config.unknown_share, unmet=each.unmet
        )
        for each in (some, with_words)
    )
    gains = (before - after).numpy()
    if gains.mean() <= gains.std() / np.sqrt(len(gains)):
        why_not = "they do not help on photos of val"
        return ChosenWords(observed, read.pictures, why_not=why_not)
    return ChosenWords(with_words, read.pictures, help=True)


def _read_stage(
    shop: ShopData, photos: Sequence[Path], config: IdentificationConfig, runtime: Runtime
) -> ReadWords | str:
    """Return what the stage "words" read, or why it has read no more than a few photos."""
    reader = WordReader()
    inputs = {"pictures": shop.vision_key, "reader": reader.key, "max_read": config.max_read}
    stage = runtime.workspace.run(
        "words",
        {**inputs, "photos": len(photos)},
        lambda folder: _write(_read(shop, photos, reader, config, runtime), folder / RESULT),
    )
    found: dict[str, Any] = json.loads((stage.folder / RESULT).read_text("utf-8"))
    if "why_not" in found:
        return str(found["why_not"])
    return ReadWords(
        tuple(map(tuple, found["photos"])),
        {item_id: tuple(lines) for item_id, lines in found["pictures"].items()},
    )


def _write(found: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps(found, ensure_ascii=False), "utf-8")


def _read(
    shop: ShopData,
    photos: Sequence[Path],
    reader: WordReader,
    config: IdentificationConfig,
    runtime: Runtime,
) -> dict[str, Any]:
    cache = ReadingCache(runtime.workspace.root / CACHE, reader)
    tried = _evenly(len(photos), N_TRIED)
    with_letters = [
        any(len(line) >= MIN_LETTERS for line in lines)
        for lines in cache.read([photos[n] for n in tried], progress=runtime.progress)
    ]
    if sum(with_letters) < MIN_SHARE * len(tried):
        return {"why_not": f"{sum(with_letters)} of {len(tried)} photos of val show letters"}
    items = shop.dataset.items.drop_nulls("image")
    if len(items) > config.max_read:
        logger.warning(
            "the words on the shop's %d pictures are not read, as max_read is %d: photos are "
            "compared with titles and descriptions alone",
            len(items),
            config.max_read,
        )
        items = items.clear()
    pictures = cache.read(picture_paths(shop.dataset, items["image"]), progress=runtime.progress)
    return {
        "photos": cache.read(photos, progress=runtime.progress),
        "pictures": dict(zip(items["item_id"], pictures, strict=True)),
    }


class ReadingCache:
    """Reads pictures, and keeps what was read in a file, by the content of each picture.

    Every few pictures are written at once, so that reading goes on where it was stopped. A line of
    the file that is not whole is ignored. The oldest lines are dropped when there are too many.

    Args:
        folder: Folder of the file; made if needed.
        reader: Reader of the words; another version of it has a file of its own.
        max_kept: Largest number of pictures that are kept from one run to the next.
    """

    def __init__(self, folder: Path, reader: WordReader, *, max_kept: int = MAX_KEPT) -> None:
        make_folder(folder)
        name = hashlib.sha256(reader.key.encode()).hexdigest()[:12]
        self._path, self._reader = folder / f"{name}.ndjson", reader
        self._known = dict(_read_whole_lines(self._path)[-max_kept:])
        with whole_file(self._path) as path:
            path.write_text("".join(map(_line, self._known.items())), "utf-8")

    def read(self, paths: Sequence[Path], *, progress: bool = False) -> list[Lines]:
        """Return the lines on each picture.

        Raises:
            ImageError: If a picture cannot be read. The message has its position.
            FileAccessError: If the file cannot be written.
        """
        found = []
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            for batch in read_batches(paths, self._look, batch_size=BATCH_SIZE, progress=progress):
                new = {key: lines for key, lines in batch if key not in self._known}
                file.write("".join(map(_line, new.items())))
                file.flush()
                self._known |= new
                found += [lines for _, lines in batch]
        return found

    def _look(self, image: Any) -> tuple[str, Lines]:
        picture = open_picture(image, MAX_SIDE // 2)
        key = content_key(picture)
        return key, self._known[key] if key in self._known else self._reader.read(picture)


def _line(entry: tuple[str, Lines]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _read_whole_lines(path: Path) -> list[tuple[str, Lines]]:
    """Return the entries of a file; a line that a crash has cut is left out."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text("utf-8", errors="replace").splitlines():
        try:
            key, lines = json.loads(line)
        except ValueError:
            continue
        found.append((str(key), tuple(map(str, lines))))
    return found


def _evenly(n: int, at_most: int) -> Ints:
    """Return at most so many of the numbers below n, evenly spaced."""
    return take_evenly(np.arange(n), n_items=1, max_cells=at_most)
