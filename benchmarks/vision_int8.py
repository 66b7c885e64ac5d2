"""Compare ways to run a trained tower on Grocery Store's test photos, and record those of int8.

Run from the repository's root, on an idle machine, with a tower that ``benchmarks.grocery_store``
trained: ``python -m benchmarks.vision_int8 --tower out/grocery-store/BUNDLE/vision``. The variants
take turns in one process, with torch's number of threads, on pictures in memory.
"""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import torch

import vision.checkpoint
from benchmarks.published import imported
from benchmarks.record import record
from recsys.data.dataset import Dataset, load_dataset
from recsys.data.tables import Tables
from recsys.training.labels import item_labels, photo_labels
from vision.dataset import Samples
from vision.deploy.comparison import VariantRow, compare_variants

CALIBRATION_PHOTOS = 128
RECORDED_BATCH = 32  # batch size whose speed is recorded
BATCH_SIZES = (1, RECORDED_BATCH)


def main() -> None:
    """Compare, print the table and record the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tower", type=Path, required=True, help="folder of a trained tower")
    parser.add_argument(
        "--repeats", type=int, default=31, help="number of timed passes of each variant"
    )
    parser.add_argument("--limit", type=int, help="number of test photos to use, without recording")
    arguments = parser.parse_args()
    folder = imported("grocery-store", "grocery-store.tar")
    tables = Tables(folder / "items.parquet", photos=folder / "photos.parquet")
    dataset = load_dataset(tables, now=datetime.now(UTC))
    rows = compare_variants(
        vision.checkpoint.load(arguments.tower),
        test_samples(dataset, arguments.limit),
        calibration=calibration_photos(dataset),
        batch_sizes=BATCH_SIZES,
        repeats=arguments.repeats,
    )
    print_table(rows)
    if arguments.limit is None:
        record_int8(rows, f"python -m benchmarks.vision_int8 --tower {arguments.tower}")


def test_samples(dataset: Dataset, limit: int | None) -> Samples:
    """Return the test photos with their labels, all or the first ``limit`` of them."""
    photos = _photos(dataset, ["test"])[:limit]
    known = photo_labels(photos, dataset.items, item_labels(dataset.items))
    images = [Path(image) for image in photos["image"]]
    return Samples(images, known.indices, known.classes, root=dataset.images_root)


def calibration_photos(dataset: Dataset) -> list[Path]:
    """Return photos spread evenly over the train and val splits."""
    photos = _photos(dataset, ["train", "val"])
    every = max(1, len(photos) // CALIBRATION_PHOTOS)
    root = dataset.images_root or Path()
    return [root / image for image in photos["image"].gather_every(every)]


def print_table(rows: Sequence[VariantRow]) -> None:
    """Print a line for each variant."""
    print(f"{torch.get_num_threads()} threads; pictures/s by batch size; accuracy by target")
    for row in rows:
        speeds = "  ".join(f"{size}: {speed:7.1f}/s" for size, speed in row.pictures_per_s.items())
        accuracies = "  ".join(f"{name} {share:.2%}" for name, share in row.accuracy.items())
        print(f"{row.name:16} {row.size_mb:7.1f} MB  {speeds}  {accuracies}")


def record_int8(rows: Sequence[VariantRow], command: str) -> None:
    """Record the speed of ONNX over float32, and int8's loss of accuracy on the finest target."""
    by_name = {row.name: row for row in rows}
    eager, onnx, int8 = (by_name[name] for name in ("float32", "onnx float32", "onnx int8"))

    def speedup(row: VariantRow, batch: int) -> float:
        return row.pictures_per_s[batch] / eager.pictures_per_s[batch]

    finest = list(eager.accuracy)[-1]
    lost = 100 * (eager.accuracy[finest] - int8.accuracy[finest])
    for name, value, unit in (
        ("vision_int8.speedup", speedup(int8, RECORDED_BATCH), "ratio"),
        ("vision_int8.single.speedup", speedup(int8, 1), "ratio"),
        ("vision_int8.onnx.speedup", speedup(onnx, RECORDED_BATCH), "ratio"),
        ("vision_int8.accuracy_lost", lost, "points"),
    ):
        print(record("vision_int8", name, value, unit, command))


def _photos(dataset: Dataset, splits: Sequence[str]) -> pl.DataFrame:
    if dataset.photos is None:
        raise SystemExit("the imported tables must have photos, got none")
    return dataset.photos.filter(pl.col("split").is_in(splits))


if __name__ == "__main__":
    main()
