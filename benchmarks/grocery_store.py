"""Train on Grocery Store, record accuracies on the test photos, and query a service.

Run from the repository's root: ``python -m benchmarks.grocery_store``.
"""

import argparse
import asyncio
from pathlib import Path

import polars as pl

from benchmarks.published import imported
from benchmarks.record import record
from benchmarks.training_run import measure
from recsys.data.dataset import Dataset
from serving.client import AsyncClient
from serving.testing import running_service

COMMAND = "python -m benchmarks.grocery_store"
LEVELS = {"coarse": "category_2", "fine": "category_3"}


def main() -> None:
    """Train, record the figures, and identify a test photo through the service."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--resume", action="store_true", help="keep finished stages, and record no training time"
    )
    resume = parser.parse_args().resume
    imported("grocery-store", "grocery-store.tar")
    config = Path("configs/grocery_store.toml")
    measured = measure(config, Path("out/grocery-store"), resume=resume)
    if not resume:
        record("grocery", "grocery.train.seconds", measured.seconds, "s", COMMAND)
    accuracies = {row.target: row for row in measured.report.classification}
    for name, target in LEVELS.items():
        print(name, accuracies[target])
        value = accuracies[target].accuracy.mean
        record("grocery", f"grocery.{name}.accuracy", value, "accuracy", COMMAND)
    (identified,) = measured.report.retrieval
    print(identified)  # grocery_identify records these figures, with a better recipe
    asyncio.run(identify_one(measured.run.bundle, measured.run.dataset))


async def identify_one(bundle: Path, dataset: Dataset) -> None:
    """Identify one test photo through a service on the bundle, and print the answer."""
    if dataset.photos is None or dataset.images_root is None:
        raise SystemExit("the imported tables must have photos, got none")
    photo = dataset.photos.filter(pl.col("split") == "test").row(0, named=True)
    async with running_service(bundle) as service, AsyncClient(service.address) as client:
        answer = await client.identify((dataset.images_root / photo["image"]).read_bytes())
    candidates = [(one.item_id, round(one.score, 3)) for one in answer.candidates]
    print(f"service: {photo['image']} is {photo['item_id']}; answer {answer.known}, {candidates}")


if __name__ == "__main__":
    main()
