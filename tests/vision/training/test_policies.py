"""Random operations: each picture its own, repeatable, the same whoever holds it."""

from typing import get_args

import pytest
import torch

from vision.training.policies import Policy, apply_policy
from vision.training.processes import Shard

ON = [policy for policy in get_args(Policy) if policy != "none"]


def pictures(count: int = 12) -> torch.Tensor:
    one = torch.randint(0, 256, (1, 3, 24, 24), generator=torch.Generator().manual_seed(0))
    return one.to(torch.uint8).repeat(count, 1, 1, 1)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("policy", ON)
def test_every_picture_changes_differently(policy: Policy) -> None:
    changed = apply_policy(pictures(), policy, generator=seeded(0))
    assert changed.shape == (12, 3, 24, 24)
    assert changed.dtype == torch.uint8
    assert len({one.numpy().tobytes() for one in changed}) > 6


@pytest.mark.parametrize("policy", ON)
def test_a_seed_repeats_the_changes_and_leaves_the_global_generator_alone(policy: Policy) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = apply_policy(pictures(), policy, generator=seeded(1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert torch.equal(apply_policy(pictures(), policy, generator=seeded(1)), first)
    assert not torch.equal(apply_policy(pictures(), policy, generator=seeded(2)), first)


@pytest.mark.parametrize("policy", ON)
def test_a_process_draws_for_its_rows_what_one_process_would(policy: Policy) -> None:
    whole = apply_policy(pictures(), policy, generator=seeded(5))
    for rank in range(3):
        part = apply_policy(pictures(4), policy, generator=seeded(5), shard=Shard(rank, 3))
        assert torch.equal(part, whole[rank::3])


def test_without_a_policy_the_pictures_are_unchanged() -> None:
    same = pictures()
    assert apply_policy(same, "none", generator=seeded(0)) is same
