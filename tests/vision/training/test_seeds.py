"""Seeds of steps; text has a copy of this file."""

from types import SimpleNamespace
from typing import Any

import torch

from vision.training.seeds import Reseed, seed_generators, step_seed


def test_every_run_step_and_stream_draws_differently() -> None:
    seeds = {
        step_seed(seed, step, stream)
        for seed in (0, 1)
        for step in (0, 1, 2)
        for stream in ("network", "augmentation")
    }
    assert len(seeds) == 12
    assert step_seed(3, 4, "network") == step_seed(3, 4, "network")


def test_random_numbers_of_a_step_depend_only_on_seed_and_step() -> None:
    module: Any = None

    def drawn(seed: int, epoch: int, batch_idx: int) -> float:
        trainer: Any = SimpleNamespace(current_epoch=epoch, num_training_batches=5)
        torch.rand(batch_idx + 1)  # what was drawn before must not matter
        Reseed(seed).on_train_batch_start(trainer, module, None, batch_idx)
        return float(torch.rand(()))

    with torch.random.fork_rng():
        assert drawn(0, 1, 2) == drawn(0, 1, 2)
        assert len({drawn(seed, epoch, 2) for seed in (0, 1) for epoch in (0, 1)}) == 4
        assert drawn(0, 1, 2) == drawn(0, 0, 7), "step 7 of the run"


def test_generators_are_seeded_as_torch_seeds_them() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        wanted = torch.rand(3)
        seed_generators(5)
        assert torch.equal(torch.rand(3), wanted)
