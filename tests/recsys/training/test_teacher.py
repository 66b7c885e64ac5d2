from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.errors import DataError
from recsys.training.teacher import Teacher


def written(path: Path, ids: list[str], embeddings: list[list[float]]) -> Path:
    pl.DataFrame({"id": ids, "embedding": embeddings}).write_parquet(path)
    return path


def test_embeddings_are_matched_by_id_and_zero_where_there_is_none(tmp_path: Path) -> None:
    path = written(tmp_path / "teacher.parquet", ["c", "x", "a"], [[1, 2], [3, 4], [5, 6]])
    loaded = Teacher(path, ["a", "b", "c"]).embeddings
    assert loaded.dtype == np.float32
    assert loaded.tolist() == [[5, 6], [0, 0], [1, 2]]


def test_the_parts_of_a_folder_are_one_table(tmp_path: Path) -> None:
    written(tmp_path / "part-00000.parquet", ["a"], [[1, 2]])
    written(tmp_path / "part-00001.parquet", ["b"], [[3, 4]])
    assert Teacher(tmp_path, ["b", "a"]).embeddings.tolist() == [[3, 4], [1, 2]]


def test_without_a_teacher_the_embeddings_have_no_columns() -> None:
    nobody = Teacher(None, ["a", "b"])
    assert nobody.embeddings.shape == (2, 0)
    assert nobody.key == ""


def test_the_table_is_read_once_and_not_for_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []
    scan = pl.scan_parquet

    def counted(files: list[Path], **options: Any) -> pl.LazyFrame:
        reads.extend(files)
        return scan(files, **options)

    monkeypatch.setattr(pl, "scan_parquet", counted)
    path = written(tmp_path / "teacher.parquet", ["a"], [[1, 2]])
    teacher = Teacher(path, ["a"])
    assert teacher.key
    assert reads == []
    assert teacher.embeddings is teacher.embeddings
    assert reads == [path]


def test_the_key_is_that_of_the_files_not_of_their_place(tmp_path: Path) -> None:
    here = written(tmp_path / "here.parquet", ["a"], [[1, 2]])
    there = written(tmp_path / "there.parquet", ["a"], [[1, 2]])
    other = written(tmp_path / "other.parquet", ["a"], [[1, 3]])
    keys = [Teacher(path, ["a"]).key for path in (here, there, other)]
    assert keys[0] == keys[1] != keys[2]


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
def test_a_table_that_cannot_be_used_says_why(
    table: dict[str, list[object]], message: str, tmp_path: Path
) -> None:
    pl.DataFrame(table).write_parquet(tmp_path / "teacher.parquet")
    with pytest.raises(DataError, match=message):
        _ = Teacher(tmp_path / "teacher.parquet", ["a", "b"]).embeddings


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"got .*nowhere\.parquet"):
        _ = Teacher(tmp_path / "nowhere.parquet", ["a"]).embeddings


def test_a_teacher_that_does_not_exist_is_refused_and_not_taken_for_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"teacher must be an existing file or folder, got .*typo"):
        Teacher(tmp_path / "typo.parquet", ["a"])


def test_a_teacher_without_its_columns_is_refused_before_it_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "teacher.parquet"
    pl.DataFrame({"item": ["a"]}).write_parquet(path)
    with pytest.raises(
        DataError, match=r"columns id and embedding, .* lacks \['id', 'embedding'\]"
    ):
        Teacher(path, ["a"])
    path.write_bytes(b"not a table")
    with pytest.raises(DataError, match="must be Parquet of id and embedding"):
        Teacher(path, ["a"])
