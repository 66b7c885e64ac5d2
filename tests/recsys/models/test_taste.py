import math

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.models.taste import DECAYS_DAYS, MAX_AXES, TasteRegression

DIM = 5
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def catalogue(n_items: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.1])
    return torch.randn(n_items, DIM, generator=generator) * spread + 1.0


def regression() -> TasteRegression:
    """Return a regression fitted to the catalogue, every learned number moved from its start."""
    torch.manual_seed(1)
    module = TasteRegression(DIM, n_kinds=2)
    module.fit_scale(catalogue())
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def inputs() -> Inputs:
    generator = torch.Generator().manual_seed(2)
    items = catalogue()[torch.randint(40, (3, 6), generator=generator)]
    ages = torch.rand(3, 6, generator=generator) * 200
    kinds = torch.randint(2, (3, 6), generator=generator)
    mask = torch.arange(6) >= torch.tensor([0, 4, 6])[:, None]
    return items, ages, kinds, mask


def by_normal_equations(module: TasteRegression, columns: Inputs, row: int) -> np.ndarray:
    """Return (P + sum w x x^T)^-1 sum w x, the posterior mean as textbooks write it."""
    items, ages, kinds, mask = columns
    mixture = module.log_mixture.softmax(dim=0).tolist()
    metric = (module.axes * module.log_relevance.exp()).detach().double().numpy()
    precision = np.linalg.inv(metric @ metric.T)
    total = np.zeros(DIM)
    for event in range(items.shape[1]):
        if not mask[row, event]:
            continue
        fading = [math.exp(-float(ages[row, event]) / days) for days in DECAYS_DAYS]
        weight = sum(m * f for m, f in zip(mixture, [*fading, 1.0], strict=True))
        weight *= math.exp(float(module.log_trust.weight.detach()[int(kinds[row, event]), 0]))
        x = (items[row, event] - module.mean).double().numpy()
        precision += weight * np.outer(x, x)
        total += weight * x
    return np.linalg.solve(precision, total)


@pytest.mark.parametrize("row", [0, 1])
def test_the_vector_solves_the_normal_equations(row: int) -> None:
    module, columns = regression(), inputs()
    wanted = by_normal_equations(module, columns, row)
    np.testing.assert_allclose(module(*columns)[row].detach().numpy(), wanted, rtol=1e-3, atol=1e-5)


def test_the_parts_of_the_events_add_up_to_the_vector() -> None:
    module, columns = regression(), inputs()
    parts = module.parts(*columns)
    torch.testing.assert_close(parts.sum(dim=1), module(*columns))
    assert not parts[~columns[3]].any()


def test_no_events_give_zeros() -> None:
    assert not regression()(*inputs())[2].any()


def test_an_item_without_content_is_ignored() -> None:
    module, (items, ages, kinds, mask) = regression(), inputs()
    emptied = items.clone()
    emptied[0, 3] = 0.0
    without = mask.clone()
    without[0, 3] = False
    torch.testing.assert_close(
        module(emptied, ages, kinds, mask), module(items, ages, kinds, without)
    )


def test_a_repeated_event_adds_less_than_the_first() -> None:
    module = TasteRegression(DIM, n_kinds=1)
    module.fit_scale(catalogue())
    item = catalogue()[:1]
    scores = []
    for n_events in (1, 2, 3):
        shape = (1, n_events)
        vector = module(
            item.expand(1, n_events, DIM),
            torch.zeros(shape),
            torch.zeros(shape, dtype=torch.int64),
            torch.ones(shape, dtype=torch.bool),
        )
        scores.append(float(vector[0].detach() @ (item[0] - module.mean)))
    assert 0 < scores[2] - scores[1] < scores[1] - scores[0] < scores[0]


def test_a_common_offset_of_the_catalogue_changes_nothing() -> None:
    items, ages, kinds, mask = inputs()
    here, there = (TasteRegression(DIM, n_kinds=2) for _ in range(2))
    here.fit_scale(catalogue())
    there.fit_scale(catalogue() + 2.0)
    one, other = here(items, ages, kinds, mask), there(items + 2.0, ages, kinds, mask)
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_typical_item_has_about_length_one_at_the_start() -> None:
    module = TasteRegression(DIM, n_kinds=1)
    module.fit_scale(catalogue())
    metric = module.axes * module.log_relevance.detach().exp()
    lengths = ((catalogue() - module.mean) @ metric).norm(dim=1)
    assert 0.5 < float(lengths.square().mean()) <= 1.0


def test_items_of_zeros_are_left_out_of_the_scale() -> None:
    one, other = (TasteRegression(DIM, n_kinds=1) for _ in range(2))
    one.fit_scale(catalogue())
    other.fit_scale(torch.cat([catalogue(), torch.zeros(20, DIM)]))
    torch.testing.assert_close(one.mean, other.mean)
    torch.testing.assert_close(one.log_relevance, other.log_relevance)


def test_only_the_largest_principal_directions_are_used() -> None:
    generator = torch.Generator().manual_seed(3)
    dim = MAX_AXES + 20
    spread = torch.linspace(0.1, 3.0, dim)
    wide = torch.randn(400, dim, generator=generator) * spread
    module = TasteRegression(dim, n_kinds=1)
    module.fit_scale(wide)
    assert module.axes.shape == (dim, MAX_AXES)
    variances = (wide - wide.mean(dim=0)).square().sum(dim=0)
    read = ((wide - wide.mean(dim=0)) @ module.axes).square().sum(dim=0)
    # No MAX_AXES columns hold more of the variance than the principal directions do.
    assert float(read.sum()) >= float(variances.topk(MAX_AXES).values.sum())
