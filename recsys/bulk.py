"""Embed a whole table or a file of texts into the item space, and write it to Parquet."""

import logging
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from recsys.bundle import Bundle
from recsys.data.dataset import load_dataset
from recsys.embedding import Floats, is_readable, item_texts
from recsys.errors import DataError

logger = logging.getLogger(__name__)


def embed_items(
    bundle: Bundle,
    items: Path,
    out: Path,
    *,
    images_root: Path | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> int:
    """Write ``id`` and ``embedding`` of every valid item and return how many there were.

    Rows that break a rule are left out, and logged with the rule.

    Args:
        bundle: Whose towers and fusion to use.
        items: Items table in any format that training takes.
        out: Parquet file; it appears only when it is complete.
        images_root: What picture paths are relative to; the table's folder if None.
        device: Where the networks run.
        progress: Show a bar.

    Raises:
        DataError: If the table cannot be read.
    """
    dataset = load_dataset(
        items, images_root=images_root, now=datetime.now(UTC), check_image=is_readable
    )
    for line in dataset.quarantine.lines():
        logger.warning(line)
    embedder = bundle.embedder(device=device)
    root = dataset.images_root or Path()
    pictures = [root / image if image else None for image in dataset.items["image"]]
    modalities = embedder.modalities(item_texts(dataset.items), pictures, progress=progress)
    _write(dataset.items["item_id"], embedder.fuse(modalities), out)
    return len(dataset.items)


def embed_texts(bundle: Bundle, texts: Path, out: Path, *, device: str = "cpu") -> int:
    """Write ``id``, the line's number from 1, and ``embedding`` of every line of a text file.

    Raises:
        DataError: If the file has no text.
        MissingPartError: If the bundle has no text encoder.
    """
    bundle.require("text")
    try:
        lines = texts.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"texts must be UTF-8, got {texts}: {error}") from error
    if not any(line.strip() for line in lines):
        raise DataError(f"texts must have at least one line that is not blank, got {texts}")
    embedder = bundle.embedder(device=device)
    ids = pl.Series("item_id", [str(n) for n in range(1, len(lines) + 1)])
    _write(ids, embedder.fuse(embedder.modalities(lines, None)), out)
    return len(lines)


def _write(ids: pl.Series, embeddings: Floats, out: Path) -> None:
    frame = pl.DataFrame({"id": ids, "embedding": embeddings})
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = out.with_name(f".{out.name}.partial")
    frame.write_parquet(scratch)
    scratch.replace(out)
