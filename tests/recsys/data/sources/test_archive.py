import io
import tarfile
from pathlib import Path

import pytest

from recsys.data.sources.archive import Original, collect_pictures, unpacked
from recsys.errors import DataError


def pack(path: Path, **files: str) -> Path:
    """Write a tar archive, packed as its suffix says."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def pack_link(path: Path, target: str) -> Path:
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("marker")
        member.type, member.linkname = tarfile.SYMTYPE, target
        archive.addfile(member)
    return path


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
@pytest.mark.parametrize("prefix", ["", "dataset/"])
def test_archives_are_unpacked_and_cleaned_up(tmp_path: Path, name: str, prefix: str) -> None:
    src = pack(tmp_path / name, **{f"{prefix}marker": "m", f"{prefix}sub/other": "o"})
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    calls: list[tuple[str, int, int]] = []

    def progress(stage: str, done: int, total: int) -> None:
        calls.append((stage, done, total))

    with unpacked(src, "marker", scratch=scratch, progress=progress) as original:
        assert original.ours
        assert (original.folder / "sub" / "other").read_text() == "o"

    assert list(scratch.iterdir()) == []
    assert len(calls) == 2
    assert all(stage == "unpacking" and 0 < done <= total for stage, done, total in calls)


@pytest.mark.parametrize("prefix", ["", "dataset"])
def test_folders_are_read_where_they_are(tmp_path: Path, prefix: str) -> None:
    (tmp_path / prefix).mkdir(exist_ok=True)
    (tmp_path / prefix / "marker").touch()

    with unpacked(tmp_path, "marker", scratch=tmp_path, progress=None) as original:
        assert original == Original(tmp_path / prefix, ours=False)

    assert (tmp_path / prefix / "marker").exists()


@pytest.mark.parametrize("name", ["../marker", "a/../../marker"])
def test_an_archive_cannot_write_elsewhere(tmp_path: Path, name: str) -> None:
    src = pack(tmp_path / "a.tar", **{name: "m"})
    (tmp_path / "scratch").mkdir()

    with (
        pytest.raises(DataError, match=r"got .*a\.tar \(.*outside the destination"),
        unpacked(src, "marker", scratch=tmp_path / "scratch", progress=None),
    ):
        pass

    assert not (tmp_path / "marker").exists()
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret"])
def test_an_archive_cannot_link_elsewhere(tmp_path: Path, target: str) -> None:
    with (
        pytest.raises(DataError, match=r"got .*a\.tar \("),
        unpacked(pack_link(tmp_path / "a.tar", target), "marker", scratch=tmp_path, progress=None),
    ):
        pass


def test_what_is_no_archive_or_not_there_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_text("no archive")

    for name in ("a.tar", "b.tar"):
        with (
            pytest.raises(DataError, match=f"src must be a folder or a tar archive, got .*{name}"),
            unpacked(tmp_path / name, "marker", scratch=tmp_path, progress=None),
        ):
            pass


def test_an_archive_cut_short_is_a_data_error(tmp_path: Path) -> None:
    src = pack(tmp_path / "a.tar.gz", marker="m" * 10_000)
    src.write_bytes(src.read_bytes()[:-20])

    with (
        pytest.raises(DataError, match=r"got .*a\.tar\.gz \("),
        unpacked(src, "marker", scratch=tmp_path, progress=None),
    ):
        pass


def test_another_layout_is_a_data_error(tmp_path: Path) -> None:
    src = pack(tmp_path / "a.tar", other="o")

    with (
        pytest.raises(DataError, match=r"a\.tar must hold 'marker', as published"),
        unpacked(src, "marker", scratch=tmp_path, progress=None),
    ):
        pass


@pytest.mark.parametrize("ours", [True, False])
def test_pictures_are_moved_if_ours_else_copied_with_their_time(tmp_path: Path, ours: bool) -> None:
    source = tmp_path / "from" / "images" / "1.jpg"
    source.parent.mkdir(parents=True)
    source.write_bytes(b"picture")
    written_ns = source.stat().st_mtime_ns

    missing = collect_pictures(
        Original(tmp_path / "from", ours=ours), ["images/1.jpg"], tmp_path / "to", progress=None
    )

    target = tmp_path / "to" / "images" / "1.jpg"
    assert missing == set()
    assert target.read_bytes() == b"picture"
    assert target.stat().st_mtime_ns == written_ns
    assert source.exists() is not ours


def test_missing_pictures_are_returned_and_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    missing = collect_pictures(Original(tmp_path, True), ["b", "a"], tmp_path, progress=None)

    assert missing == {"a", "b"}
    assert "2 of 2 pictures are not among the published files, such as a" in caplog.text


def test_a_list_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    (tmp_path / "from").mkdir()

    with pytest.raises(DataError, match=r"must lie inside it, its lists name '\.\./secret'"):
        collect_pictures(
            Original(tmp_path / "from", ours=True), ["../secret"], tmp_path / "to", progress=None
        )

    assert (tmp_path / "secret").exists()
