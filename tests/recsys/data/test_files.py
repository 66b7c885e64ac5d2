from pathlib import Path

import pytest

from recsys.data.files import make_folder, whole_file, whole_folder, writing
from recsys.errors import FileAccessError


def test_a_file_appears_when_it_is_whole_in_a_folder_that_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with whole_file(path) as scratch:
        scratch.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert [*path.parent.iterdir()] == [path]


def test_what_was_there_stays_until_then_and_after_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), whole_file(path) as scratch:
        scratch.write_text("new \udc80", "utf-8")
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with whole_file(path) as one, whole_file(path) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one", "the last that is done"


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder"
    with whole_folder(path) as scratch:
        (scratch / "file").write_text("whole")
        assert not path.exists()
    assert (path / "file").read_text() == "whole"
    assert [*path.parent.iterdir()] == [path]


def test_after_a_failure_nothing_of_a_folder_is_left(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError), whole_folder(tmp_path / "folder") as scratch:
        (scratch / "file").write_text("half \udc80", "utf-8")
    assert not [*tmp_path.iterdir()]


def test_a_place_that_cannot_be_written_is_named_with_the_cause(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    path = tmp_path / "file" / "table.parquet"
    wanted = f"{path} cannot be written .*choose another place"
    with pytest.raises(FileAccessError, match=wanted), whole_file(path) as scratch:
        scratch.write_text("content")
    with pytest.raises(FileAccessError, match=wanted), whole_folder(path):
        pass


def test_an_error_about_another_file_is_passed_on(tmp_path: Path) -> None:
    source = tmp_path / "elsewhere" / "source"
    source.mkdir(parents=True)
    with pytest.raises(IsADirectoryError) as caught, whole_file(tmp_path / "out" / "file"):
        source.read_bytes()
    assert not isinstance(caught.value, FileAccessError)


def test_a_folder_is_made_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    make_folder(folder)
    make_folder(folder)
    assert folder.is_dir()
    assert not [*folder.iterdir()]


# No user can make a file or folder in /proc, not even root.
@pytest.mark.parametrize("folder", ["/proc", "/proc/missing/folder"])
def test_a_folder_that_cannot_be_made_or_written_to_is_refused(folder: str) -> None:
    with pytest.raises(FileAccessError, match=f"{folder} cannot be written"):
        make_folder(Path(folder))


def test_a_file_in_a_folder_that_cannot_be_made_is_refused() -> None:
    path = Path("/proc/missing/file")
    with pytest.raises(FileAccessError, match=f"{path} cannot be written"), whole_file(path):
        pass


def test_a_writer_that_forgets_its_file_is_a_defect(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, whole_file(tmp_path / "file"):
        pass
    assert not isinstance(caught.value, FileAccessError)


def test_an_error_about_a_file_inside_a_written_folder_names_the_folder(tmp_path: Path) -> None:
    (tmp_path / "page.html").mkdir()
    wanted = f"{tmp_path} cannot be written"
    with pytest.raises(FileAccessError, match=wanted), writing(tmp_path):
        (tmp_path / "page.html").write_text("content")
