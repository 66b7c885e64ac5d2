import errno
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from recsys.bundle.finding import LATEST, find_bundle
from recsys.bundle.sealing import seal
from recsys.errors import BundleError


def sealed(root: Path, text: str = "weights") -> Path:
    def fill(folder: Path) -> None:
        (folder / "file.txt").write_text(text)

    return seal(root, fill)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of two bundles, the newer of which is the latest."""
    sealed(tmp_path / "run", "old")
    sealed(tmp_path / "run", "new")
    return tmp_path / "run"


def newest(root: Path) -> str:
    return (root / LATEST).resolve().name


def test_the_latest_bundle_is_the_one_sealed_last(root: Path) -> None:
    new = sealed(root, "newer still")
    assert find_bundle(root) == find_bundle(root / LATEST) == find_bundle(new) == new.resolve()


def follow_links(root: Path, copy: Path) -> None:
    shutil.copytree(root, copy)


def keep_links(root: Path, copy: Path) -> None:
    shutil.copytree(root, copy, symlinks=True)


def write_text(root: Path, copy: Path, text: str = "{name}") -> None:
    shutil.copytree(root, copy)
    shutil.rmtree(copy / LATEST)
    (copy / LATEST).write_bytes(text.format(name=newest(root)).encode())


def write_lines(root: Path, copy: Path) -> None:
    write_text(root, copy, "\ufeff{name}\r\n")


def write_path(root: Path, copy: Path) -> None:
    write_text(root, copy, "C:\\runs\\shop\\{name}")


def link_elsewhere(root: Path, copy: Path) -> None:
    write_text(root, copy)
    (copy / LATEST).unlink()
    (copy / LATEST).symlink_to(f"/another/machine/runs/{newest(root)}")


def nest(root: Path, copy: Path) -> None:
    """Copy the bundle into a folder ``latest``, as `cp -r run/<hash> copy/latest/` does."""
    shutil.copytree(root / newest(root), copy / LATEST / newest(root))


def drop_others(root: Path, copy: Path) -> None:
    """Copy the latest bundle without its name, as a sync of `run/latest/` does."""
    shutil.copytree(root / LATEST, copy / LATEST)


def drop_latest(root: Path, copy: Path) -> None:
    """Copy one bundle alone; some stores drop links."""
    shutil.copytree(root / newest(root), copy / newest(root))


def zip_and_unzip(root: Path, copy: Path) -> None:
    """Leave an empty folder ``latest``, as Python's archives do."""
    (older,) = (path for path in root.iterdir() if path.name not in {LATEST, newest(root)})
    shutil.rmtree(older)
    archive = shutil.make_archive(str(copy), "zip", root)
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(copy)


COPIES = [
    *(follow_links, keep_links, write_text, write_lines, write_path, link_elsewhere, nest),
    *(drop_others, drop_latest, zip_and_unzip),
]


@pytest.mark.parametrize("how", COPIES)
def test_a_copied_run_opens_the_same_bundle(
    how: Callable[[Path, Path], None], root: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    how(root, copy)
    found = find_bundle(copy)
    assert (found / "file.txt").read_text() == "new"
    assert found.is_relative_to(copy)
    if how is not drop_latest:
        assert find_bundle(copy / LATEST) == found


@pytest.mark.parametrize("how", [follow_links, write_lines, link_elsewhere])
def test_training_into_a_copy_makes_latest_a_link_again(
    how: Callable[[Path, Path], None], root: Path, tmp_path: Path
) -> None:
    how(root, tmp_path / "copy")
    assert find_bundle(tmp_path / "copy") != sealed(tmp_path / "copy", "third").resolve()
    assert os.readlink(tmp_path / "copy" / LATEST) == sealed(tmp_path / "copy", "third").name


def test_where_links_cannot_be_made_latest_is_a_text_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: str) -> None:
        raise OSError(errno.EPERM, "Operation not permitted", str(self))

    monkeypatch.setattr(Path, "symlink_to", refuse)
    bundle = sealed(tmp_path)
    assert (tmp_path / LATEST).read_text() == f"{bundle.name}\n"
    assert find_bundle(tmp_path) == bundle.resolve()


def test_a_latest_whose_bundle_was_removed_names_those_that_are_there(root: Path) -> None:
    gone = newest(root)
    shutil.rmtree(root / gone)
    (kept,) = (path for path in root.iterdir() if path.name != LATEST)
    for path in (root, root / LATEST):
        with pytest.raises(BundleError, match=f"got '{gone}', which is not there; copy .*{kept}"):
            find_bundle(path)


def test_several_bundles_without_a_latest_are_ambiguous(root: Path) -> None:
    (root / LATEST).unlink()
    with pytest.raises(BundleError, match="must hold a `latest` beside its 2 bundles, found none"):
        find_bundle(root)


@pytest.mark.parametrize("text", ["", "\n", "..", "\x00\x01", "latest"])
def test_a_latest_that_names_nothing_is_refused(text: str, root: Path) -> None:
    (root / LATEST).unlink()
    (root / LATEST).write_text(text)
    with pytest.raises(BundleError, match=r"must name a bundle in .*, got .*; copy .*open one of"):
        find_bundle(root)


def test_a_latest_that_links_to_itself_is_refused(root: Path) -> None:
    (root / LATEST).unlink()
    (root / LATEST).symlink_to(LATEST)
    with pytest.raises(BundleError, match="must name a bundle in"):
        find_bundle(root)


def test_a_folder_without_bundles_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="must hold a bundle, found none; train one with"):
        find_bundle(tmp_path)
    with pytest.raises(BundleError, match="bundle must be a folder, got"):
        find_bundle(tmp_path / "nothing")


def test_a_run_folder_may_itself_be_called_latest(tmp_path: Path) -> None:
    bundle = sealed(tmp_path / LATEST)
    assert find_bundle(tmp_path / LATEST) == bundle.resolve()
