"""Make parts in the processes of a Ray cluster (https://docs.ray.io)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from recsys.bulk.parts import Job
from recsys.errors import MissingExtraError


class PartWorker:
    """A process of the cluster, which loads the bundle once and then makes parts.

    Args:
        job: Inputs of the parts.
    """

    def __init__(self, job: Job) -> None:
        self._make = job.build()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Make the parts whose numbers are in the batch, and return it."""
        for part in batch["part"]:
            self._make(int(part))
        return batch


def make_on_ray(job: Job, missing: Sequence[int], done: Callable[[int], None]) -> None:
    """Make the missing parts, with one process for each core, or for each CUDA card.

    Only the numbers of the parts go through Ray, and each process reads and writes its own files.
    Ray starts on this machine unless it already runs or ``RAY_ADDRESS`` names a cluster.

    Args:
        job: Inputs of the parts.
        missing: Numbers of the parts to make.
        done: Function called with the number of each finished part, in any order.

    Raises:
        MissingExtraError: If Ray is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError(
            "engine ray needs Ray: pip install 'vitrine-recsys[ray]'"
        ) from error
    if not ray.is_initialized():
        ray.init(include_dashboard=False)
    on_card = torch.device(job.device).type == "cuda"
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    places = int(resources.get("GPU" if on_card else "CPU", 1))
    numbers = ray.data.from_items(
        [{"part": part} for part in missing], override_num_blocks=len(missing)
    )
    finished = numbers.map_batches(
        PartWorker,
        fn_constructor_args=(job,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=max(1, min(places, len(missing)))),
        num_cpus=1,
        num_gpus=1 if on_card else 0,
    )
    for row in finished.iter_rows():
        done(int(row["part"]))
