from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.arrays import Bools, Floats
from recsys.errors import ConfigError, InvalidArgumentError
from serving.engine.device_table import WAYS, DeviceTable, Stored, check_device, hash_keys

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


def build(rows: int, device: str = "cpu", stored: Stored = "float32") -> DeviceTable:
    """A table with room for so many rows of float32."""
    return DeviceTable(max_bytes=rows * ROW_BYTES, dim=DIM, device=device, stored=stored)


def put(table: DeviceTable, names: Sequence[object], values: Sequence[float]) -> Bools:
    rows = torch.tensor(values, dtype=torch.float32)[:, None].expand(-1, DIM)
    return table.put(hash_keys([str(one) for one in names]), rows)


def get(table: DeviceTable, *names: object) -> list[float | None]:
    """The value of each row, None where there is none; all values of a row are the same."""
    found = table.get(hash_keys([str(one) for one in names]))
    rows: Floats = found.rows.cpu().numpy()
    assert found.rows.device.type == torch.device(table.device).type
    assert (rows == rows[:, :1]).all()
    assert not rows[~found.there].any(), "zeros where there is nothing"
    pairs = zip(rows[:, 0].tolist(), found.there.tolist(), strict=True)
    return [value if is_there else None for value, is_there in pairs]


@devices
def test_a_batch_gets_what_was_put(device: str) -> None:
    table = build(64, device)
    assert put(table, ["a", "b", "c"], [1, 2, 3]).all()

    assert get(table, "c", "x", "a", "c") == [3, None, 1, 3]
    assert get(table) == []
    assert len(table) == 3


def test_a_key_that_is_there_gets_the_new_row_and_of_two_the_last() -> None:
    table = build(64)
    put(table, ["a"], [1])
    put(table, ["a", "b", "b"], [4, 5, 6])

    assert get(table, "a", "b") == [4, 6]
    assert len(table) == 2


@given(
    st.lists(
        st.tuples(st.booleans(), st.lists(st.integers(0, 40), min_size=1, max_size=12)),
        max_size=20,
    ),
    st.integers(0, 40),
)
def test_a_row_is_never_that_of_another_key(
    steps: list[tuple[bool, list[int]]], capacity: int
) -> None:
    table, latest = build(capacity), dict[int, float]()
    for step, (writes, names) in enumerate(steps):
        if writes:
            values = [100.0 * step + place for place in range(len(names))]
            kept = put(table, names, values)
            latest |= dict(zip(names, values, strict=True))
            found = get(table, *names)
            assert [one is not None for one in found] == kept.tolist()
        for name, value in zip(names, get(table, *names), strict=True):
            assert value is None or value == latest[name]
    assert len(table) <= min(capacity, len(latest))


def test_while_there_is_room_in_a_set_everything_is_kept() -> None:
    table = build(WAYS)  # one set
    assert put(table, range(WAYS), range(WAYS)).all()
    assert get(table, *range(WAYS)) == list(range(WAYS))


def test_rows_that_are_used_survive_a_pass_over_many_that_are_read_once() -> None:
    table = build(8 * WAYS)
    hot, scanned = range(40), range(1_000, 4_000)
    put(table, hot, hot)
    for start in range(0, len(scanned), 50):
        some = scanned[start : start + 50]
        get(table, *some)
        put(table, some, some)
        get(table, *hot)

    there = sum(one is not None for one in get(table, *hot))
    assert there >= 38, f"{there} of 40 rows are there after the pass"


def test_a_row_that_is_asked_for_more_often_takes_the_place_of_an_unused_one() -> None:
    table = build(WAYS)
    put(table, range(WAYS), range(WAYS))
    for _ in range(3):
        get(table, *range(1, WAYS), "new")
    assert put(table, ["new"], [7]).all()

    assert get(table, "new", 0) == [7, None]
    assert None not in get(table, *range(1, WAYS))


def test_old_uses_are_forgotten() -> None:
    table = build(WAYS)
    put(table, range(WAYS), range(WAYS))
    for _ in range(20):
        get(table, *range(WAYS))
    for _ in range(12 * 10):  # nobody asks for the old rows any more
        get(table, *[f"new {place}" for place in range(WAYS)])
        put(table, [f"new {place}" for place in range(WAYS)], range(WAYS))

    assert get(table, *[f"new {place}" for place in range(WAYS)]) == list(range(WAYS))


@devices
@pytest.mark.parametrize(("stored", "error"), [("float16", 2e-3), ("int8", 2e-2)])
def test_smaller_types_hold_more_rows_of_nearly_the_same_values(
    stored: Stored, error: float, device: str
) -> None:
    rows = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    table = DeviceTable(max_bytes=64 * 1024, dim=16, device=device, stored=stored)
    whole = DeviceTable(max_bytes=64 * 1024, dim=16, device=device)
    keys = hash_keys([str(n) for n in range(200)])
    table.put(keys, rows)
    found = table.get(keys)

    assert found.there.all()
    assert (found.rows.cpu() - rows).abs().max() <= error * rows.abs().max()
    assert table.capacity > whole.capacity
    assert table.capacity * table.row_bytes <= 64 * 1024


def test_what_a_caller_does_to_its_rows_changes_nothing() -> None:
    table = build(64)
    put(table, ["a"], [1])
    table.get(hash_keys(["a"])).rows[:] = 9

    assert get(table, "a") == [1]


def test_a_budget_below_one_row_keeps_nothing() -> None:
    table = DeviceTable(max_bytes=ROW_BYTES - 1, dim=DIM, device="cpu")

    assert not put(table, ["a"], [1]).any()
    assert get(table, "a") == [None]


def test_rows_of_another_size_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"embeddings must have shape \(1, 4\)"):
        build(64).put(hash_keys(["a"]), torch.zeros(1, 5))


@pytest.mark.parametrize("device", ["meta", "tpu", "", "auto"])
def test_a_device_that_cannot_be_used_is_refused_with_what_torch_says(device: str) -> None:
    with pytest.raises(ConfigError, match=rf"device must be one that .*, got '{device}': \w"):
        check_device(device)


def test_a_table_that_does_not_fit_into_memory_is_refused() -> None:
    with pytest.raises(ConfigError, match="device_table_bytes must fit into the memory of cpu"):
        DeviceTable(max_bytes=2**60, dim=DIM, device="cpu")
