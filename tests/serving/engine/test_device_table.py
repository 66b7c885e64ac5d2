import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import ConfigError
from serving.engine.device_table import DeviceTable, check_device

DIM = 4
ROW_BYTES = 4 * DIM

devices = pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        ),
    ],
)


def embedding(value: float) -> np.ndarray:
    return np.full(DIM, value, dtype=np.float32)


@devices
def test_get_returns_what_was_put(device: str) -> None:
    table = DeviceTable(max_bytes=2 * ROW_BYTES, dim=DIM, device=device)
    table.put("a", embedding(1))

    np.testing.assert_array_equal(table.get("a"), embedding(1))
    assert table.get("b") is None


@devices
def test_the_least_recently_used_row_is_replaced(device: str) -> None:
    table = DeviceTable(max_bytes=2 * ROW_BYTES, dim=DIM, device=device)
    table.put("a", embedding(1))
    table.put("b", embedding(2))
    table.get("a")
    table.put("c", embedding(3))

    assert table.get("b") is None
    np.testing.assert_array_equal(table.get("a"), embedding(1))
    np.testing.assert_array_equal(table.get("c"), embedding(3))


def test_get_returns_a_copy() -> None:
    table = DeviceTable(max_bytes=ROW_BYTES, dim=DIM, device="cpu")
    table.put("a", embedding(1))
    found = table.get("a")
    assert found is not None
    found[:] = 9

    np.testing.assert_array_equal(table.get("a"), embedding(1))


def test_a_budget_below_one_row_keeps_nothing() -> None:
    table = DeviceTable(max_bytes=ROW_BYTES - 1, dim=DIM, device="cpu")
    table.put("a", embedding(1))

    assert table.get("a") is None


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=60),
    st.integers(1, 5),
)
def test_it_is_an_ordered_dictionary_that_forgets(
    steps: list[tuple[bool, int]], capacity: int
) -> None:
    table = DeviceTable(max_bytes=capacity * ROW_BYTES, dim=DIM, device="cpu")
    model: dict[str, float] = {}
    for step, (writes, name) in enumerate(steps):
        key = str(name)
        if writes:
            table.put(key, embedding(step))
            model.pop(key, None)
            model[key] = step
            if len(model) > capacity:
                del model[next(iter(model))]
            continue
        found = table.get(key)
        assert (found is None) == (key not in model)
        if found is not None:
            assert found[0] == model[key]
            model[key] = model.pop(key)
    assert len(table) == len(model)


@pytest.mark.parametrize("device", ["meta", "tpu", "", "auto"])
def test_a_device_that_cannot_be_used_is_refused_with_what_torch_says(device: str) -> None:
    with pytest.raises(ConfigError, match=rf"device must be one that .*, got '{device}': \w"):
        check_device(device)


def test_a_table_that_does_not_fit_into_memory_is_refused() -> None:
    with pytest.raises(ConfigError, match="device_table_bytes must fit into the memory of cpu"):
        DeviceTable(max_bytes=2**60, dim=DIM, device="cpu")
