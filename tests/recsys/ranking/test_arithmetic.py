import numpy as np
import pytest
import torch

from recsys.ranking.arithmetic import exact, exp2, log1p, multiplied_together, products


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("function", "oracle"), [(log1p, np.log1p), (exp2, np.exp2)])
def test_a_function_is_rounded_once_wherever_its_value_lies(function, oracle) -> None:
    values = numbers(1_000).abs()
    wanted = [np.float32(oracle(float(value))) for value in values]
    found = function(values)
    assert found.dtype == torch.float32
    assert found.tolist() == wanted
    assert [function(values[n : n + 1]).item() for n in range(1_000)] == wanted


def test_products_are_those_of_the_definition() -> None:
    vectors, items = numbers(7, 32), numbers(90, 32) + 1
    wanted = vectors.double() @ items.double().T
    torch.testing.assert_close(products(vectors, items).double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dim", [5, 32, 100])
def test_a_user_has_the_same_products_in_every_batch(dim: int) -> None:
    vectors, items = numbers(40, dim), numbers(500, dim) + 1
    together = products(vectors, items)
    for some in (slice(0, 1), slice(3, 4), slice(5, 8), slice(11, 40)):
        assert torch.equal(products(vectors[some], items), together[some])


def test_nobody_has_no_products() -> None:
    assert products(numbers(0, 4), numbers(9, 4)).shape == (0, 9)


def test_only_an_accelerator_multiplies_users_together() -> None:
    assert [*multiplied_together(3, torch.device("cpu"))] == [slice(n, n + 1) for n in range(3)]
    assert [*multiplied_together(3, torch.device("cuda"))] == [slice(0, 3)]


def test_an_exact_network_is_a_copy_in_double_precision() -> None:
    network = torch.nn.Linear(3, 2)
    found = exact(network)
    assert (found.weight.dtype, network.weight.dtype) == (torch.float64, torch.float32)
    assert torch.equal(found.weight.float(), network.weight)
