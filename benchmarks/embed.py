"""Time ``recsys embed`` against a plain loop, and measure its memory on a small and a large table.

Run from the repository's root, after ``python -m benchmarks.myntra_retrieval``:
``python -m benchmarks.embed``.

Speed is measured on Myntra's items, with titles and pictures, from the table on disk to the vectors
on disk. The plain loop is what one would write without this library: ``encode`` of
sentence-transformers for the titles, a ``Dataset`` and a ``DataLoader`` with a worker per core for
the pictures, and then the fusion. All contestants use the weights of the same bundle and take turns
in one process. ``float32`` and ``auto`` are ``embed_items`` in that precision. ``ratio_to_loop`` is
the speed of ``auto``, which is bfloat16 where the hardware has it, over that of the loop.

Memory is the peak of a separate process that embeds a generated table of different titles. The text
encoder is tiny, so a million rows take minutes. Its size does not matter, because only the memory
that grows with the table is of interest.
"""

import argparse
import multiprocessing
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import (
    CenterCrop,
    Compose,
    InterpolationMode,
    Normalize,
    Resize,
    ToTensor,
)

from benchmarks.published import imported
from benchmarks.record import record
from recsys.bulk import EmbedOptions, embed_items
from recsys.bundle import Bundle, Contents, write_bundle
from recsys.catalogue.embedder import ItemEmbedder, Modalities, item_texts
from recsys.config import FusionConfig
from recsys.models.fusion import build_fusion
from text.config import TextConfig
from text.networks.build import build_encoder
from text.tokens.normalize import normalize
from vision.precision import Precision
from vision.tower import VisionTower

TOPIC = "embed"
COMMAND = "python -m benchmarks.embed"
SIZES = {"10k": 10_000, "1m": 1_000_000}  # rows of the tables whose memory is measured
BATCH = 64

Embed = Callable[[Path], None]  # to a Parquet file


def main() -> None:
    """Measure speed and memory, and record them."""
    options = _parse()
    figures: dict[str, tuple[float, str]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.only in (None, "speed"):
            figures |= _speeds(Bundle(options.bundle), options.items, options.rounds, folder)
        if options.only in (None, "memory"):
            figures |= _memory(folder)
    for name, (value, unit) in figures.items():
        print(f"{TOPIC}.{name} = {value:.4g} {unit}")
        if options.record:
            record(TOPIC, f"{TOPIC}.{name}", value, unit, " ".join([COMMAND, *sys.argv[1:]]))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--bundle", type=Path, default=Path("out/myntra-all"), help="folder of the bundle"
    )
    parser.add_argument("--items", type=int, default=4000, help="number of items to embed")
    parser.add_argument("--rounds", type=int, default=3, help="number of timed turns")
    parser.add_argument("--only", choices=["speed", "memory"], help="the one thing to measure")
    parser.add_argument(
        "--no-record", dest="record", action="store_false", help="print without recording"
    )
    return parser.parse_args()


def _speeds(bundle: Bundle, count: int, rounds: int, folder: Path) -> dict[str, tuple[float, str]]:
    """Return items per second of each contestant, and the ratios to the plain loop."""
    root = imported("myntra", "myntra-small.tar.gz")
    table = folder / "items.parquet"
    pl.scan_parquet(root / "items.parquet", glob=False).drop_nulls("image").head(
        count
    ).sink_parquet(table)
    contestants = {
        "loop": _plain_loop(bundle, table, root),
        "float32": _ours(bundle, table, root, "32-true"),
        "auto": _ours(bundle, table, root, "auto"),
    }
    speeds = _in_turns(contestants, rounds, folder)
    figures = {f"{name}.items_per_s": (speed, "items/s") for name, speed in speeds.items()}
    figures["float32.ratio_to_loop"] = (speeds["float32"] / speeds["loop"], "ratio")
    figures["ratio_to_loop"] = (speeds["auto"] / speeds["loop"], "ratio")
    return figures


def _ours(bundle: Bundle, table: Path, root: Path, precision: Precision) -> Embed:
    def run(out: Path) -> None:
        embed_items(bundle, table, out, EmbedOptions(images_root=root, precision=precision))

    return run


class _Pictures(Dataset[Tensor]):
    """Picture files, loaded as the normalised pixels that the network reads."""

    def __init__(self, paths: Sequence[Path], tower: VisionTower) -> None:
        wanted = tower.preprocess
        side = wanted.size
        interpolation = InterpolationMode(wanted.interpolation)
        resize = (
            [Resize((side, side), interpolation)]
            if wanted.fit == "stretch"
            else [Resize(side, interpolation), CenterCrop(side)]
        )
        self.transform = Compose([*resize, ToTensor(), Normalize(wanted.mean, wanted.std)])
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Tensor:
        with Image.open(self.paths[row]) as picture:
            pixels: Tensor = self.transform(picture.convert("RGB"))
        return pixels


def _plain_loop(bundle: Bundle, table: Path, root: Path) -> Embed:
    """Return an embedding loop as one would write it without this library."""
    from sentence_transformers import SentenceTransformer

    titles = SentenceTransformer(str(bundle.path / "text"), device="cpu")
    # Copies, because the other contestants change the memory format of the bundle's networks.
    copy = Bundle(bundle.path)
    tower = copy.vision.to(memory_format=torch.contiguous_format)
    embedder = ItemEmbedder(None, None, copy.fusion)

    def run(out: Path) -> None:
        items = pl.read_parquet(table, glob=False)
        # Normalised as in training, so that all contestants compute the same.
        words = [normalize(text or "") for text in item_texts(items)]
        text = titles.encode(words, batch_size=BATCH, show_progress_bar=False)
        loader = DataLoader(
            _Pictures([root / image for image in items["image"]], tower),
            batch_size=BATCH,
            num_workers=len(os.sched_getaffinity(0)),
        )
        with torch.inference_mode():
            image = np.concatenate([tower(pixels).numpy() for pixels in loader])
        present = {"text": np.array([bool(one) for one in words])}
        present["image"] = np.ones(len(items), dtype=np.bool_)
        vectors = embedder.fuse(Modalities({"text": text, "image": image}, present))
        pl.DataFrame({"id": items["item_id"], "embedding": vectors}).write_parquet(out)

    return run


def _in_turns(contestants: Mapping[str, Embed], rounds: int, folder: Path) -> dict[str, float]:
    """Return each contestant's median items per second; the first round is a warm-up."""
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    vectors: dict[str, np.ndarray] = {}
    for turn in range(1 + rounds):
        for name, embed in contestants.items():
            out = folder / f"{name}.parquet"
            start = time.perf_counter()
            embed(out)
            seconds = time.perf_counter() - start
            vectors[name] = pl.read_parquet(out, glob=False)["embedding"].to_numpy()
            speeds[name].append(len(vectors[name]) / seconds)
            print(f"round {turn}: {name} {speeds[name][-1]:.1f} items/s", flush=True)
    for name, found in vectors.items():
        cosine = (found * vectors["loop"]).sum(axis=1).min()
        print(f"{name}: lowest cosine with the loop's vectors {cosine:.4f}")
    return {name: statistics.median(measured[1:]) for name, measured in speeds.items()}


def _memory(folder: Path) -> dict[str, tuple[float, str]]:
    """Return the peak memory of a process that embeds a table, for each table size."""
    bundle = _tiny_bundle(folder / "tiny")
    figures = {}
    for name, n_rows in SIZES.items():
        table = folder / f"titles-{name}.parquet"
        titles = pl.format("lamp {} mug {}", pl.col("n") % 977, pl.col("n"))
        rows = pl.LazyFrame({"n": pl.int_range(n_rows, eager=True)})
        rows.select(item_id="n", title=titles).sink_parquet(table)
        # A new process for each table, because a process keeps its peak until it ends.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            peak = process.submit(_peak_bytes, bundle, table, folder / name).result()
        print(f"{n_rows:,} rows: {peak / 1e6:.0f} MB", flush=True)
        figures[f"peak_gb_{name}"] = (peak / 1e9, "GB")
    return figures


def _tiny_bundle(folder: Path) -> Path:
    """Return a bundle with a text encoder of 16 dimensions and no layers."""
    encoder = build_encoder(
        TextConfig(hidden=16, layers=0, heads=1), ["lamp mug 0123456789"], seed=0
    )
    config = FusionConfig(dim=64, hidden=16)
    contents = Contents(
        items=pl.DataFrame({"item_id": ["a"]}),
        item_embeddings=np.zeros((1, config.dim), np.float32),
        text=encoder,
        fusion=build_fusion(config, {"text": encoder.dim}),
    )
    return write_bundle(contents, folder)


def _peak_bytes(bundle: Path, table: Path, out: Path) -> int:
    """Embed a table and return the peak memory of this process."""
    embed_items(Bundle(bundle), table, out)
    # getrusage would include the peak of the parent process.
    status = Path("/proc/self/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None, "Linux always has this line"
    return int(found[1]) * 1024


if __name__ == "__main__":
    main()
