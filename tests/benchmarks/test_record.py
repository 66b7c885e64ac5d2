import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from benchmarks.record import latest, record


def test_record_writes_one_json_object_a_line_with_the_documented_keys(tmp_path: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    record("shop", "shop.ndcg@10", 0.25, "ndcg", "make bench", folder=tmp_path)
    record("shop", "shop.cold.recall@20", 3, "ratio", "make bench", folder=tmp_path)

    lines = [json.loads(line) for line in (tmp_path / "shop.jsonl").read_text().splitlines()]

    assert [line["name"] for line in lines] == ["shop.ndcg@10", "shop.cold.recall@20"]
    assert [line["value"] for line in lines] == [0.25, 3.0]
    assert list(lines[0]) == ["name", "value", "unit", "command", "hardware", "versions", "at"]
    assert lines[0]["versions"]["torch"] == torch.__version__.split("+")[0]
    assert "core" in lines[0]["hardware"]
    at = datetime.fromisoformat(lines[0]["at"])
    assert at.tzinfo == UTC
    assert before <= at <= datetime.now(UTC)


def test_a_new_number_replaces_only_the_earlier_one_of_its_name(tmp_path: Path) -> None:
    for value in (300.0, 200.0):
        record("demo", "demo.seconds", value, "s", "make demo", folder=tmp_path)
        record("demo", "demo.peak_gb", 2.0, "GB", "make demo", folder=tmp_path)

    assert {name: result.value for name, result in latest("demo", folder=tmp_path).items()} == {
        "demo.seconds": 200.0,
        "demo.peak_gb": 2.0,
    }
    assert len((tmp_path / "demo.jsonl").read_text().splitlines()) == 2


def test_the_last_line_of_a_name_wins_in_a_file_that_was_appended_to(tmp_path: Path) -> None:
    record("demo", "demo.seconds", 1.0, "s", "make demo", folder=tmp_path)
    path = tmp_path / "demo.jsonl"
    path.write_text(path.read_text() + path.read_text().replace('"value": 1.0', '"value": 7.0'))

    assert latest("demo", folder=tmp_path)["demo.seconds"].value == 7.0


def test_latest_without_a_topic_reads_every_topic(tmp_path: Path) -> None:
    record("demo", "demo.seconds", 1.0, "s", "make demo", folder=tmp_path)
    record("tests", "tests.seconds", 2.0, "s", "make test", folder=tmp_path)

    assert sorted(latest(folder=tmp_path)) == ["demo.seconds", "tests.seconds"]
    assert latest("nothing_yet", folder=tmp_path) == {}


@pytest.mark.parametrize("name", ["demo", "shop.seconds", "demo.", "demo.Peak GB", "demo/x.y", ""])
def test_a_name_that_does_not_fit_its_topic_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"name must be 'demo' and one or more parts"):
        record("demo", name, 1.0, "s", "make demo", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match=r"value of demo\.seconds must be a finite number"):
        record("demo", "demo.seconds", value, "s", "make demo", folder=tmp_path)


def test_a_number_without_unit_or_command_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unit"):
        record("demo", "demo.seconds", 1.0, "", "make demo", folder=tmp_path)
    with pytest.raises(ValueError, match="command"):
        record("demo", "demo.seconds", 1.0, "s", "", folder=tmp_path)


def test_a_damaged_line_is_refused_with_its_number(tmp_path: Path) -> None:
    record("demo", "demo.seconds", 1.0, "s", "make demo", folder=tmp_path)
    path = tmp_path / "demo.jsonl"
    path.write_text(path.read_text() + "{half\n")

    with pytest.raises(ValueError, match=r"line 2 of .*demo\.jsonl must be one result"):
        latest("demo", folder=tmp_path)


def test_a_topic_with_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="topic must be a word"):
        latest("../demo", folder=tmp_path)


def test_simultaneous_writers_lose_no_result(tmp_path: Path) -> None:
    # The lock belongs to an open file, so threads exclude each other just as processes do.
    def record_one(number: int) -> None:
        record("demo", f"demo.n{number}", number, "s", "make demo", folder=tmp_path)

    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(record_one, range(40)))

    assert len(latest("demo", folder=tmp_path)) == 40
    assert [path.name for path in tmp_path.iterdir()] == ["demo.jsonl"]
