from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.errors import DataError
from recsys.training.teacher import load_teacher


def written(path: Path, ids: list[str], embeddings: list[list[float]]) -> Path:
    pl.DataFrame({"id": ids, "embedding": embeddings}).write_parquet(path)
    return path


def test_embeddings_are_matched_by_id_and_zero_where_there_is_none(tmp_path: Path) -> None:
    path = written(tmp_path / "teacher.parquet", ["c", "x", "a"], [[1, 2], [3, 4], [5, 6]])
    loaded = load_teacher(path, ["a", "b", "c"])
    assert loaded.dtype == np.float32
    assert loaded.tolist() == [[5, 6], [0, 0], [1, 2]]


def test_the_parts_of_a_folder_are_one_table(tmp_path: Path) -> None:
    written(tmp_path / "part-00000.parquet", ["a"], [[1, 2]])
    written(tmp_path / "part-00001.parquet", ["b"], [[3, 4]])
    assert load_teacher(tmp_path, ["b", "a"]).tolist() == [[3, 4], [1, 2]]


def test_no_teacher_has_embeddings_of_no_size() -> None:
    assert load_teacher(None, ["a", "b"]).shape == (2, 0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"id": ["z"], "embedding": [[1.0]]}, "items of the catalogue, .* none of them"),
        ({"id": ["a", "b"], "embedding": [[1.0], [1.0, 2.0]]}, "one size, got sizes"),
        ({"id": ["a"], "embedding": [[float("nan")]]}, "finite"),
        ({"id": ["a"], "vector": [[1.0]]}, r"lacks \['embedding'\]"),
        ({"id": ["a"], "embedding": ["1 2"]}, "must be Parquet of id and embedding"),
    ],
)
def test_a_table_that_is_no_teacher_says_why(
    table: dict[str, list[object]], message: str, tmp_path: Path
) -> None:
    pl.DataFrame(table).write_parquet(tmp_path / "teacher.parquet")
    with pytest.raises(DataError, match=message):
        load_teacher(tmp_path / "teacher.parquet", ["a", "b"])


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"got .*nowhere\.parquet"):
        load_teacher(tmp_path / "nowhere.parquet", ["a"])
