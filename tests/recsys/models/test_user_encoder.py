import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.config import UserConfig
from recsys.data.interactions import EMPTY_HISTORY, MICROSECONDS_PER_DAY, History
from recsys.models.user_encoder import (
    UserEncoder,
    UserEncoderSpec,
    build_user_encoder,
    pad_histories,
)

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def encoder(*, trained: bool = True) -> UserEncoder:
    """Return an encoder with random weights everywhere, or as training starts."""
    torch.manual_seed(0)
    spec = UserEncoderSpec(width=8, heads=2, depth=2, recent_length=4)
    module = UserEncoder(8, n_kinds=2, spec=spec).eval()
    if trained:
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return module


def inputs(lengths: tuple[int, ...] = (6, 3, 1, 0), n_events: int = 6) -> Inputs:
    generator = torch.Generator().manual_seed(1)
    shape = (len(lengths), n_events)
    items = torch.nn.functional.normalize(torch.randn(*shape, 8, generator=generator), dim=2)
    ages = torch.rand(*shape, generator=generator).mul(100).sort(dim=1, descending=True).values
    kinds = torch.randint(2, shape, generator=generator)
    mask = torch.arange(n_events) >= n_events - torch.tensor(lengths)[:, None]
    return items, ages, kinds, mask


def test_user_vectors_have_unit_length() -> None:
    vectors = encoder()(*inputs())
    assert vectors.shape == (4, 8)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))


def test_a_user_without_events_gets_the_newcomer_vector() -> None:
    module = encoder()
    wanted = torch.nn.functional.normalize(module.newcomer, dim=0)
    torch.testing.assert_close(module(*inputs())[3], wanted)


def test_without_layers_the_vector_is_the_regression_alone() -> None:
    torch.manual_seed(0)
    module = UserEncoder(8, n_kinds=2, spec=UserEncoderSpec()).eval()
    taste = module.taste(*inputs())[:3]
    torch.testing.assert_close(module(*inputs())[:3], torch.nn.functional.normalize(taste, dim=1))


def test_the_correction_starts_at_zero() -> None:
    module = encoder(trained=False)
    assert module.correction is not None
    assert not module.correction(*inputs()).any()


def test_padding_cannot_leak() -> None:
    module, (items, ages, kinds, mask) = encoder(), inputs()
    noise = torch.where(mask[..., None], items, torch.full_like(items, 9.0))
    changed = module(noise, torch.where(mask, ages, 3.0), torch.where(mask, kinds, 0), mask)
    torch.testing.assert_close(changed, module(items, ages, kinds, mask))


def test_more_padding_changes_nothing() -> None:
    module, few = encoder(), inputs((3, 2), n_events=3)
    items, ages, kinds, mask = few
    padded = (
        torch.cat([torch.ones(2, 4, 8), items], dim=1),
        *(torch.cat([torch.zeros(2, 4, dtype=x.dtype), x], dim=1) for x in (ages, kinds, mask)),
    )
    torch.testing.assert_close(module(*padded), module(*few))


def test_the_order_of_events_matters_by_their_ages_only() -> None:
    module, (items, ages, kinds, mask) = encoder(), inputs((4, 4), n_events=4)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = module(items[:, order], ages[:, order], kinds[:, order], mask[:, order])
    torch.testing.assert_close(shuffled, module(items, ages, kinds, mask))


@pytest.mark.parametrize("changed", ["items", "ages", "kinds"])
def test_every_input_reaches_the_user_vector(changed: str) -> None:
    module, (items, ages, kinds, mask) = encoder(), inputs()
    after = {
        "items": (items.roll(1, dims=2), ages, kinds, mask),
        "ages": (items, ages * 3, kinds, mask),
        "kinds": (items, ages, 1 - kinds, mask),
    }[changed]
    before = module(items, ages, kinds, mask)
    # One event's regression is the item whatever its age, so that only the transformer tells.
    assert (module(*after)[:3] - before[:3]).abs().amax(dim=1).min() > 1e-3


def test_a_user_gets_the_same_vector_in_any_batch() -> None:
    module, batch = encoder(), inputs()
    alone = torch.cat([module(*(column[i : i + 1] for column in batch)) for i in range(4)])
    torch.testing.assert_close(alone, module(*batch))


def test_gradients_are_finite_with_newcomers_in_the_batch() -> None:
    module = encoder().train()
    module(*inputs()).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_shapes_that_disagree_are_named() -> None:
    items, ages, kinds, mask = inputs()
    with pytest.raises(ValueError, match=r"items must be \(B, L, 8\)"):
        encoder()(items[..., :4], ages, kinds, mask)
    with pytest.raises(ValueError, match=r"\(4, 5\)"):
        encoder()(items, ages[:, :5], kinds, mask)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match=r"multiple of heads \(3\), got 8"):
        UserEncoder(8, n_kinds=2, spec=UserEncoderSpec(width=8, heads=3))


def test_weights_and_config_rebuild_the_module() -> None:
    config = UserConfig(width=8, heads=2, depth=1)
    one, other = (build_user_encoder(config, dim=8, n_kinds=2).eval() for _ in range(2))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(*inputs()), other(*inputs()))


def history(days: list[int]) -> History:
    return History(
        item_rows=np.array(days, dtype=np.int64) + 100,
        kinds=np.array(days, dtype=np.int64) % 2,
        timestamps_us=np.array(days, dtype=np.int64) * MICROSECONDS_PER_DAY,
    )


def test_histories_are_padded_in_front_and_cut_to_the_latest_events() -> None:
    now_us = np.array([10, 10, 10], dtype=np.int64) * MICROSECONDS_PER_DAY
    padded = pad_histories([history([1, 4, 6, 9]), history([7]), EMPTY_HISTORY], 3, now_us)
    assert padded.mask.tolist() == [[True] * 3, [False, False, True], [False] * 3]
    assert padded.rows.tolist() == [[104, 106, 109], [0, 0, 107], [0, 0, 0]]
    assert padded.ages_days.tolist() == [[6, 4, 1], [0, 0, 3], [0, 0, 0]]
    assert padded.kinds.tolist() == [[0, 0, 1], [0, 0, 1], [0, 0, 0]]


def test_events_at_or_after_the_moment_are_left_out() -> None:
    now_us = np.array([6 * MICROSECONDS_PER_DAY])
    padded = pad_histories([history([1, 4, 6, 9])], 3, now_us)
    assert padded.rows[padded.mask].tolist() == [101, 104]


def test_every_history_needs_a_moment() -> None:
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(1,\)"):
        pad_histories([EMPTY_HISTORY, EMPTY_HISTORY], 3, np.array([0]))
