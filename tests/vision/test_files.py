"""Whole files on disks that are full, slow or shared; text has a copy of the tested module."""

import errno
import fcntl
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import safetensors.torch
import torch
from PIL import Image

from tests.full_disk import files_up_to
from vision.errors import FileAccessError
from vision.files import (
    NAME_BYTES,
    SCRATCH,
    scratch_folder,
    whole_file,
    whole_files,
    whole_folder,
    writing,
)

HOUR_S = 3_600


def with_torch(path: Path) -> None:
    torch.save(torch.ones(100_000), path)


def with_safetensors(path: Path) -> None:
    safetensors.torch.save_file({"weights": torch.ones(100_000)}, path)


def with_numpy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.ones(100_000))


def with_polars(path: Path) -> None:
    pl.DataFrame({"a": np.random.default_rng(0).random(100_000)}).write_parquet(path)


def by_streaming(path: Path) -> None:
    pl.LazyFrame({"a": np.random.default_rng(0).random(100_000)}).sink_parquet(path)


def as_csv(path: Path) -> None:
    pl.DataFrame({"a": np.arange(100_000)}).write_csv(path)


def as_text(path: Path) -> None:
    path.write_text("text" * 10_000)


def as_picture(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, format="PNG")


WRITERS = [
    *(with_torch, with_safetensors, with_numpy, with_polars, by_streaming),
    *(as_csv, as_text, as_picture),
]


def written(path: Path, write: Callable[[Path], None], *, full: bool = False) -> None:
    """Write a file whole; ``full`` is a device that takes nothing, as a full disk does."""
    with whole_file(path) as scratch:
        if full:
            scratch.symlink_to("/dev/full")
        write(scratch)


@pytest.mark.parametrize("write", WRITERS)
def test_a_disk_that_takes_no_more_is_one_error_whichever_library_writes(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    wanted = rf"^{path} cannot be written \(.*or choose another place$"
    with pytest.raises(FileAccessError, match=wanted) as caught, files_up_to(20_000):
        written(path, write)
    assert caught.value.path == path
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    "write", [with_torch, with_numpy, with_polars, as_csv, as_text, as_picture]
)
def test_a_full_disk_is_named_with_the_free_space(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    wanted = r"\(.*, \d+\.\d [MG]B free\); make room there and run again, or choose"
    with pytest.raises(FileAccessError, match=wanted):
        written(tmp_path / "file", write, full=True)
    assert not [*tmp_path.iterdir()]


def test_a_full_database_is_recognised_by_its_words(tmp_path: Path) -> None:
    with pytest.raises(FileAccessError, match=f"{tmp_path} cannot be written"), writing(tmp_path):
        raise sqlite3.OperationalError("database or disk is full")


def test_the_words_of_a_cause_count(tmp_path: Path) -> None:
    def store() -> None:
        try:
            raise RuntimeError("Read-only file system (os error 30)")
        except RuntimeError as error:
            raise ValueError("the trial cannot be stored") from error

    with (
        pytest.raises(FileAccessError, match=r"Read-only file system\); give access"),
        writing(tmp_path),
    ):
        store()


def test_an_error_with_other_words_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a defect"), writing(tmp_path):
        raise ValueError("a defect")
    other = OSError(errno.EMFILE, "Too many open files")
    with pytest.raises(OSError, match="Too many open files") as caught, writing(tmp_path):
        raise other
    assert caught.value is other


def test_the_size_that_is_needed_is_named(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    wanted = r"No space left on device, 5\.2 GB needed, .* free"
    with pytest.raises(FileAccessError, match=wanted), writing(tmp_path, needed=5_200_000_000):
        raise full


def test_a_quota_is_no_defect_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(FileAccessError, match="Disk quota exceeded"), writing(tmp_path):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


def test_an_error_inside_names_the_file_and_one_in_a_scratch_folder_the_target(
    tmp_path: Path,
) -> None:
    path = tmp_path / "run" / "weights"
    with pytest.raises(FileAccessError, match=f"^{path} cannot"), writing(tmp_path / "run"):
        written(path, as_text, full=True)
    folder = tmp_path / "bundle"
    with pytest.raises(FileAccessError, match=f"^{folder} cannot"), whole_folder(folder) as scratch:
        written(scratch / "weights", as_text, full=True)


def test_a_folder_that_is_removed_while_it_is_written_is_named(tmp_path: Path) -> None:
    def remove(scratch: Path) -> None:
        scratch.parent.rmdir()
        scratch.write_text("content")

    path = tmp_path / "run" / "file"
    with pytest.raises(FileAccessError, match=f"{path} cannot be written"):
        written(path, remove)


@pytest.mark.parametrize(
    "name",
    ["a b", "ünïcödé ☂", "x" * 255, "[glob]*?", "-rf", "trailing.", "quote'\"", "ü" * 127],
)
def test_any_name_that_the_disk_takes_can_be_written(name: str, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / ("d" * 100) / ("e" * 100)):
        with whole_file(folder / name) as scratch:
            scratch.write_text("content")
        assert (folder / name).read_text() == "content"
        assert [*folder.glob(".*")] == []


def test_a_name_that_the_disk_does_not_take_is_refused(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 256)
    with pytest.raises(FileAccessError, match="File name too long"), whole_file(path) as scratch:
        scratch.write_text("content")


def test_files_replace_those_of_their_names_and_no_others(tmp_path: Path) -> None:
    for name in ("config.json", "weights", "notes"):
        (tmp_path / name).write_text("old")
    with whole_files(tmp_path, last="config.json") as scratch:
        (scratch / "config.json").write_text("new")
        (scratch / "deep").mkdir()
        (scratch / "deep" / "weights").write_text("new")
        assert (tmp_path / "config.json").read_text() == "old"
    files = {
        str(path.relative_to(tmp_path)): path.read_text()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    assert files == {"config.json": "new", "deep/weights": "new", "weights": "old", "notes": "old"}


def test_a_reader_never_sees_a_mixture_of_old_and_new_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        seen.append({path.name for path in tmp_path.iterdir() if not path.name.startswith(".")})
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    for _ in range(2):
        with whole_files(tmp_path, last="b") as scratch:
            for name in ("a", "b", "c"):
                (scratch / name).write_text(name)
    assert all("b" not in names for names in seen)


def leave(path: Path, *, age_s: float = HOUR_S) -> Path:
    """Return a scratch folder as a killed process leaves it."""
    code = (
        "import os, sys; from pathlib import Path; from vision.files import scratch_folder\n"
        "with scratch_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'half').write_text('half'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    (left,) = path.parent.glob(f".{path.name[:NAME_BYTES]}.*")
    os.utime(left, (left.stat().st_atime, left.stat().st_mtime - age_s))
    return left


def test_what_a_killed_process_left_is_removed_by_the_next_that_writes_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left = leave(tmp_path / "file")
    with whole_file(tmp_path / "other") as scratch:
        scratch.write_text("other")
    assert left.exists()
    with whole_file(tmp_path / "file") as scratch:
        scratch.write_text("whole")
    assert not left.exists()
    assert f"removed {left}, which an interrupted run left" in caplog.text


def test_what_a_live_process_writes_is_left_alone(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "file") as other:
        (other / "half").write_text("half")
        os.utime(other, (0, 0))
        with whole_file(tmp_path / "file") as scratch:
            scratch.write_text("whole")
        assert (other / "half").read_text() == "half"


def test_a_folder_so_young_that_its_writer_may_not_have_locked_it_is_left_alone(
    tmp_path: Path,
) -> None:
    left = leave(tmp_path / "file", age_s=0.0)
    with whole_file(tmp_path / "file") as scratch:
        scratch.write_text("whole")
    assert left.exists()


def test_files_of_others_with_a_similar_name_are_left_alone(tmp_path: Path) -> None:
    for name in (".file.swp", ".file.0123456789ab", ".file.mine"):
        (tmp_path / name).write_text("mine")
        os.utime(tmp_path / name, (0, 0))
    with whole_file(tmp_path / "file") as scratch:
        scratch.write_text("whole")
    assert len([*tmp_path.iterdir()]) == 4


def test_where_the_system_has_no_locks_nothing_is_removed_and_files_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = leave(tmp_path / "file")

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with whole_file(tmp_path / "file") as scratch:
        scratch.write_text("whole")
    assert (tmp_path / "file").read_text() == "whole"
    assert left.exists()


def test_a_mounted_folder_is_filled_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda self: self == volume)
    before = volume.stat().st_ino
    with whole_folder(volume) as scratch:
        assert volume in scratch.parents
        (scratch / "images").mkdir()
        (scratch / "images" / "file").write_text("whole")
    assert volume.stat().st_ino == before
    assert [str(path.relative_to(volume)) for path in volume.rglob("*")] == [
        "images",
        "images/file",
    ]


def test_scratch_folders_are_hidden_and_recognised(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "file") as folder:
        assert SCRATCH.fullmatch(folder.name)
        assert folder.parent == tmp_path
