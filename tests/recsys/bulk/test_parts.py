from pathlib import Path

import pytest

from recsys.bulk.parts import WHOLE, Parts, Shard, begin_parts, find_parts

INPUTS = {"bundle": "b", "table": "t", "images_root": "/shop", "precision": "32-true"}


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("n_rows", [1, 4, 5, 23, 24])
def test_shards_have_every_part_once_and_parts_every_row(n_rows: int, count: int) -> None:
    parts = Parts(Path(), 4, n_rows)
    numbers = [part for n in range(count) for part in parts.of(Shard(n, count))]
    assert sorted(numbers) == [*parts.of(WHOLE)]
    assert sum(map(parts.count_rows, numbers)) == n_rows
    assert all(1 <= parts.count_rows(part) <= 4 for part in numbers)


def test_a_shard_is_written_as_a_fraction() -> None:
    assert Shard.parse("0/1") == WHOLE
    assert Shard.parse("3/10") == Shard(3, 10)


@pytest.mark.parametrize("text", ["", "1", "1/1", "2/1", "-1/2", "a/b", "0/0", "1/", "1/2/3"])
def test_what_is_no_fraction_is_no_shard(text: str) -> None:
    with pytest.raises(ValueError, match=r"shard must be i/n.*, such as 0/4, got "):
        Shard.parse(text)


def test_a_run_that_was_begun_is_found_with_what_it_has_done(tmp_path: Path) -> None:
    assert find_parts(tmp_path / "out", INPUTS, 4) is None
    parts = begin_parts(tmp_path / "out", INPUTS, 4, 10)
    assert parts.missing() == [0, 1, 2]
    parts.output(1).touch()
    again = find_parts(tmp_path / "out", INPUTS, 4)
    assert again == parts
    assert again.missing() == [0, 2]
    assert again.missing(Shard(1, 2)) == []
