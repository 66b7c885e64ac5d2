"""Embed a file of texts, one query on each line."""

from pathlib import Path

import polars as pl

from recsys.bundle import Bundle
from recsys.data.files import whole_file
from recsys.errors import DataError, FileAccessError, InvalidArgumentError
from vision.precision import Precision


def embed_texts(
    bundle: Bundle,
    texts: Path,
    out: Path,
    *,
    device: str = "cpu",
    precision: Precision = "32-true",
) -> int:
    """Write ``id`` (the line's number from 1) and ``embedding`` of every line; return the count.

    Args:
        bundle: Bundle with the text encoder and the fusion.
        texts: UTF-8 text file.
        out: Parquet file, which appears when it is complete.
        device: Device that the networks run on.
        precision: Number format of the encoder, see ``ItemEmbedder.modalities``.

    Raises:
        DataError: If the file is not UTF-8 or has no text.
        FileAccessError: If a file cannot be read or written.
        MissingPartError: If the bundle has no text encoder.
        InvalidArgumentError: If ``out`` has another suffix, or this machine lacks the device.
    """
    if out.suffix != ".parquet":
        raise InvalidArgumentError(f"out must end in .parquet, got {out.name!r}")
    bundle.require("text")
    try:
        lines = texts.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"texts must be UTF-8, got {texts}: {error}") from error
    except OSError as error:
        raise FileAccessError(f"texts {texts} cannot be read: {error.strerror}") from error
    if not any(line.strip() for line in lines):
        raise DataError(f"texts must have at least one line that is not blank, got {texts}")
    embedder = bundle.embedder(device=device)
    embeddings = embedder.fuse(embedder.modalities(lines, None, precision=precision))
    numbers = [str(number) for number in range(1, len(lines) + 1)]
    with whole_file(out) as scratch:
        pl.DataFrame({"id": numbers, "embedding": embeddings}).write_parquet(scratch)
    return len(lines)
