import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.config import RankerConfig
from recsys.models.ranker import CONSTANT, LIMIT, Ranker, build_ranker

F = 4


def features(n: int = 50) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([3.0, 1.0, 0.5, 0.01])
    return torch.randn(n, F, generator=generator) * spread + torch.tensor([5.0, 0.0, -1.0, 2.0])


def ranker() -> Ranker:
    """Return a ranker with random weights, fitted to the features."""
    torch.manual_seed(1)
    module = Ranker(F, hidden=8).eval()
    module.fit_scale(features())
    return module


def by_definition(module: Ranker, row: list[float]) -> float:
    """Return the logit of one candidate in numpy: standardise, clamp, linear plus MLP."""
    state = {name: value.double().numpy() for name, value in module.state_dict().items()}
    x = np.clip((np.array(row) - state["mean"]) / state["deviation"], -LIMIT, LIMIT)
    wide = state["wide.weight"] @ x + state["wide.bias"]
    hidden = np.maximum(state["deep.0.weight"] @ x + state["deep.0.bias"], 0.0)
    hidden = np.maximum(state["deep.3.weight"] @ hidden + state["deep.3.bias"], 0.0)
    return float((wide + state["deep.6.weight"] @ hidden + state["deep.6.bias"])[0])


def test_a_logit_equals_its_definition() -> None:
    module = ranker()
    logits = module(features()).tolist()
    for row, logit in zip(features().tolist(), logits, strict=True):
        assert logit == pytest.approx(by_definition(module, row), abs=1e-5)


def test_the_scale_is_the_mean_and_deviation_of_the_training_features() -> None:
    module, values = ranker(), features().double().numpy()
    np.testing.assert_allclose(module.mean, values.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(module.deviation, values.std(axis=0), rtol=1e-4)


def test_units_of_a_feature_do_not_matter() -> None:
    torch.manual_seed(2)
    one, other = Ranker(F).eval(), Ranker(F).eval()
    other.load_state_dict(one.state_dict())
    factors, offset = torch.tensor([100.0, 0.5, 7.0, 3.0]), torch.tensor([1.0, -2.0, 3.0, 0.0])
    one.fit_scale(features())
    other.fit_scale(features() * factors + offset)
    changed = other(features() * factors + offset)
    torch.testing.assert_close(changed, one(features()), rtol=1e-3, atol=1e-3)


def test_a_value_beyond_the_limit_equals_one_at_the_limit() -> None:
    module = ranker()
    at = (module.mean + LIMIT * module.deviation).expand(2, F).clone()
    beyond = at.clone()
    beyond[0, 1] = 1e6
    beyond[1] += 50 * module.deviation
    torch.testing.assert_close(module(beyond), module(at), rtol=1e-4, atol=1e-4)
    inside = at.clone()
    inside[:, 1] = module.mean[1]
    assert not torch.allclose(module(inside), module(at), atol=1e-3)


def test_a_feature_that_never_varied_is_switched_off() -> None:
    torch.manual_seed(3)
    module = Ranker(F).eval()
    seen = features()
    seen[:, 2] = 0.7
    module.fit_scale(seen)
    live = seen.clone()
    live[:, 2] = torch.linspace(-100.0, 100.0, len(live))
    assert torch.equal(module(live), module(seen))
    assert module(live).isfinite().all()


def test_a_feature_that_varied_a_little_is_not_switched_off() -> None:
    torch.manual_seed(3)
    module = Ranker(F).eval()
    seen = features()
    seen[:, 2] = torch.linspace(0.0, 100 * CONSTANT, len(seen))
    module.fit_scale(seen)
    live = seen.clone()
    live[:, 2] += 50 * CONSTANT
    assert not torch.allclose(module(live), module(seen), atol=1e-4)


def test_a_switched_off_feature_has_no_gradient_and_leaves_the_others_finite() -> None:
    module = Ranker(F).eval()
    seen = features()
    seen[:, 2] = 0.7
    module.fit_scale(seen)
    live = (seen + 1.0).requires_grad_()
    module(live).sum().backward()
    assert live.grad is not None
    assert live.grad.isfinite().all()
    assert not live.grad[:, 2].any()
    assert live.grad[:, 0].any()


def test_candidates_are_scored_alone_whatever_the_shape() -> None:
    module = ranker()
    rows = features(24)
    shaped = module(rows.reshape(2, 3, 4, F))
    assert shaped.shape == (2, 3, 4)
    torch.testing.assert_close(shaped.flatten(), module(rows))
    torch.testing.assert_close(module(rows[7]), module(rows)[7])


def test_the_scale_is_saved_with_the_weights() -> None:
    module, copy = ranker(), Ranker(F, hidden=8).eval()
    copy.load_state_dict(module.state_dict())
    assert torch.equal(copy(features()), module(features()))


def test_the_configuration_gives_the_sizes() -> None:
    module = build_ranker(RankerConfig(hidden=12, dropout=0.25), 7)
    assert module(torch.zeros(5, 7)).shape == (5,)
    assert module.deep[0].out_features == module.deep[3].in_features == 12
    rates = [layer.p for layer in module.deep if isinstance(layer, torch.nn.Dropout)]
    assert rates == [0.25, 0.25]


def test_dropout_is_for_training_only() -> None:
    module = ranker()
    assert torch.equal(module(features()), module(features()))
    module.train()
    assert not torch.equal(module(features()), module(features()))


@pytest.mark.parametrize("method", ["forward", "contributions"])
def test_another_number_of_features_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match=r"features must have 4 columns, got \(2, 5\)"):
        getattr(ranker(), method)(torch.zeros(2, 5))


def linear(network: Ranker) -> None:
    """Leave the linear part of a ranker alone."""
    with torch.no_grad():
        for parameter in network.deep[-1].parameters():
            parameter.zero_()


def test_contributions_of_a_linear_ranker_add_up_to_the_logit() -> None:
    network = ranker()
    linear(network)
    values = features()
    found = network.contributions(values)
    weights = network.wide.weight[0].detach()
    wanted = weights * (values - network.mean) / network.deviation
    torch.testing.assert_close(found, wanted)
    logits = network(values).detach()
    torch.testing.assert_close(found.sum(dim=1) + network.wide.bias.detach(), logits)


def test_contributions_are_first_order() -> None:
    values = features(6).double()
    network = ranker().double()
    found = network.contributions(values)
    step = 1e-6
    for column in range(F):
        nudged = values.clone()
        nudged[:, column] += step
        with torch.no_grad():
            slope = (network(nudged) - network(values)) / step
        wanted = slope * (values[:, column] - network.mean[column])
        torch.testing.assert_close(found[:, column], wanted, rtol=1e-3, atol=1e-6)


def test_a_constant_feature_contributes_zero() -> None:
    network = ranker()
    network.deviation[3] = torch.inf
    values = features()
    values[:, 3] = 1e3
    found = network.contributions(values)
    assert not found[:, 3].any()
    assert found.isfinite().all()
    assert found[:, 2].any()


def test_a_feature_beyond_the_limit_contributes_what_the_limit_does() -> None:
    network = ranker()
    linear(network)
    values = features()
    values[:, 2] = 1e6
    found = network.contributions(values)
    wanted = LIMIT * network.wide.weight[0, 2].detach()
    torch.testing.assert_close(found[:, 2], wanted.expand(len(found)))


def test_contributions_leave_the_features_unchanged() -> None:
    network = ranker()
    values = features()
    before = values.clone()
    network.contributions(values)
    assert torch.equal(values, before)
    assert not values.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
