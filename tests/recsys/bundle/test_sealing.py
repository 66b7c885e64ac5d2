import json
from collections.abc import Callable
from pathlib import Path

import pytest

from recsys.bundle.finding import find_bundle
from recsys.bundle.manifest import MANIFEST, verify
from recsys.bundle.sealing import seal as seal_folder
from recsys.errors import BundleError, FileAccessError


def seal(root: Path, text: str = "weights") -> Path:
    def fill(folder: Path) -> None:
        (folder / "part").mkdir()
        (folder / "part" / "file.txt").write_text(text)

    return seal_folder(root, fill)


def test_the_version_is_a_function_of_the_content_alone(tmp_path: Path) -> None:
    first, second = seal(tmp_path / "a"), seal(tmp_path / "b")
    assert first.name == second.name == verify(first)
    assert seal(tmp_path / "c", "other weights").name != first.name


def test_sealing_the_same_content_again_changes_nothing(tmp_path: Path) -> None:
    assert seal(tmp_path) == seal(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [find_bundle(tmp_path).name, "latest"]
    )


def test_a_folder_that_is_not_to_be_the_latest_is_sealed_beside_it(tmp_path: Path) -> None:
    first = seal(tmp_path)
    second = seal_folder(tmp_path, lambda folder: (folder / "a").touch(), latest=False)
    assert verify(second) == second.name
    assert find_bundle(tmp_path) == first


def test_a_failure_while_filling_leaves_nothing_behind(tmp_path: Path) -> None:
    def fill_and_fail(folder: Path) -> None:
        (folder / "half.bin").write_bytes(b"half")
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        seal_folder(tmp_path, fill_and_fail)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_while_filling_is_an_error_about_the_folder_of_bundles(tmp_path: Path) -> None:
    def fill_up(folder: Path) -> None:
        raise OSError(28, "No space left on device", str(folder / "weights"))

    with pytest.raises(FileAccessError, match=r"cannot be written.*No space left"):
        seal_folder(tmp_path, fill_up)
    assert list(tmp_path.iterdir()) == []


def test_two_processes_may_seal_the_same_contents_at_once(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "file.txt").write_text("weights")

    def fill_late(folder: Path) -> None:
        fill(folder)
        sealed.append(seal_folder(tmp_path, fill))

    sealed: list[Path] = []
    assert seal_folder(tmp_path, fill_late) == sealed[0]
    assert verify(sealed[0]) == sealed[0].name
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([sealed[0].name, "latest"])


def test_a_damaged_bundle_is_replaced_when_its_contents_are_sealed_again(tmp_path: Path) -> None:
    bundle = seal(tmp_path)
    (bundle / "part" / "file.txt").write_text("torn")

    assert seal(tmp_path) == bundle
    assert verify(bundle) == bundle.name
    assert (bundle / "part" / "file.txt").read_text() == "weights"


def change(folder: Path) -> None:
    (folder / "part" / "file.txt").write_text("tampered")


def remove(folder: Path) -> None:
    (folder / "part" / "file.txt").unlink()


def add(folder: Path) -> None:
    (folder / "part" / "extra.txt").write_text("smuggled")


def link(folder: Path) -> None:
    (folder / "part" / "link").symlink_to("file.txt")


def rewrite_manifest(folder: Path) -> None:
    change(folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["part/file.txt"] = "0" * 64
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (change, "part/file.txt was changed in"),
        (remove, "part/file.txt is missing from"),
        (add, "part/extra.txt was added to .*; remove it, or copy the original"),
        (link, "must hold plain files"),
        (rewrite_manifest, "must be named by its manifest's hash"),
    ],
)
def test_any_change_after_sealing_is_noticed(
    tmp_path: Path, tamper: Callable[[Path], None], message: str
) -> None:
    folder = seal(tmp_path)
    tamper(folder)
    with pytest.raises(BundleError, match=message):
        verify(folder)


@pytest.mark.parametrize(
    "name",
    [
        *(".DS_Store", "._file.txt", ".directory", ".gitkeep", "part/.nfs01", ".trash/any.txt"),
        *("part/Thumbs.db", "ehthumbs.db", "part/desktop.ini", "part_$folder$", "@eaDir/any.txt"),
        *("part/file.txt~", "manifest.json.bak"),
    ],
)
def test_what_systems_leave_in_a_folder_is_ignored(name: str, tmp_path: Path) -> None:
    folder = seal(tmp_path)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"foreign")
    assert verify(folder) == folder.name


def test_a_renamed_bundle_is_refused(tmp_path: Path) -> None:
    folder = seal(tmp_path)
    renamed = folder.rename(tmp_path / "mine")
    with pytest.raises(BundleError, match="rename the folder to it"):
        verify(renamed)


def test_a_plain_folder_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no manifest.json; copy the original bundle again"):
        verify(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 1}', '{"format": "x", "files": {}}', "\xff"]
)
def test_a_damaged_manifest_is_named_with_what_mends_it(tmp_path: Path, text: str) -> None:
    folder = seal(tmp_path)
    (folder / MANIFEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError, match=r"manifest.json is damaged \(.*\); copy the original"):
        verify(folder)


def test_a_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    import hashlib

    text = json.dumps({"format": 99, "files": {}})
    folder = tmp_path / hashlib.sha256(text.encode()).hexdigest()[:16]
    folder.mkdir()
    (folder / MANIFEST).write_text(text)
    with pytest.raises(BundleError, match="upgrade"):
        verify(folder)
