import os
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recsys.data.nearest_files import NearestFiles, same_path

NFC, NFD = (unicodedata.normalize(form, "café/tasse.jpg") for form in ("NFC", "NFD"))


def make(root: Path, *names: str) -> NearestFiles:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return NearestFiles(root.resolve())


@pytest.mark.parametrize(
    "name",
    [
        "IMG/Shoe 1.JPG",
        "img\\shoe 1.jpg",
        "/img/shoe 1.jpg",
        "./img//shoe 1.jpg",
        " img / shoe 1.jpg ",
        "img/shoe%201.jpg",
        "img/shoe 1.jpg?v=2",
        "img/shoe%201.jpg#top",
        "https://cdn.example.com/shop/img/shoe%201.jpg?w=800&h=600",
        "C:\\shop\\img\\shoe 1.jpg",
        "file:///home/shop/img/shoe 1.jpg",
        "../shop/img/shoe 1.jpg",
        "shoe 1.jpg",
        "pictures/2026/shoe 1.jpg",
        "img/shoe 1.webp",
        "img/shoe 1",
    ],
)
def test_a_path_is_near_the_file_that_it_means(tmp_path: Path, name: str) -> None:
    files = make(tmp_path, "img/shoe 1.jpg", "img/shoe 11.jpg", "other/boot.jpg")
    assert files.find(name) == os.path.join("img", "shoe 1.jpg")


@pytest.mark.parametrize(("name", "there"), [(NFC, NFD), (NFD, NFC)])
def test_the_forms_of_unicode_are_one_path(tmp_path: Path, name: str, there: str) -> None:
    found = make(tmp_path, there).find(name)
    assert found == there != name
    assert same_path(name, found)
    assert not same_path(name, there.upper())


@pytest.mark.parametrize(
    "name", ["", "?", "..", "img", "img/", "none.jpg", "a\0b.jpg", "%", "x" * 999]
)
def test_nothing_is_near_a_path_that_means_no_file(tmp_path: Path, name: str) -> None:
    assert make(tmp_path, "img/shoe.jpg").find(name) is None


def test_two_files_that_are_equally_near_are_not_named(tmp_path: Path) -> None:
    files = make(tmp_path, "a/x.jpg", "b/x.jpg", "c/y.jpg", "c/y.png", "d/Z.jpg", "d/z.JPG")
    assert files.find("x.jpg") is None
    assert files.find("c/y.webp") is None
    assert files.find("d/z.jpg") is None
    assert files.find("B/x.jpg") == os.path.join("b", "x.jpg")


def test_the_same_folder_counts_more_than_another_and_a_name_more_than_its_stem(
    tmp_path: Path,
) -> None:
    files = make(tmp_path, "a/x.jpg", "b/x.jpg", "b/y.jpg", "a/y.png")
    assert files.find("A/X.JPG") == os.path.join("a", "x.jpg")
    assert files.find("a/y.jpg") == os.path.join("b", "y.jpg")


def test_a_name_that_another_file_has_exactly_is_that_file(tmp_path: Path) -> None:
    files = make(tmp_path, "Shoe.jpg", "shoe.jpg", "50%20off.jpg", "a#1.jpg")
    assert files.find("/shoe.jpg") == "shoe.jpg"
    assert files.find("/50%20off.jpg") == "50%20off.jpg"
    assert files.find("/a#1.jpg") == "a#1.jpg"


def test_files_outside_the_root_are_never_named(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    files = make(root, "in/a.jpg")
    make(outside, "secret.jpg")
    (root / "link.jpg").symlink_to(outside / "secret.jpg")
    (root / "folder").symlink_to(outside)
    (root / "circle").symlink_to(root)
    (root / "b.jpg").symlink_to(root / "in" / "a.jpg")
    assert files.find("LINK.jpg") is None
    assert files.find("FOLDER/secret.jpg") is None
    assert files.find("../outside/secret.jpg") is None
    assert files.find("secret.jpg") is None
    assert files.find("B.jpg") == "b.jpg"
    assert files.find("Circle/IN/a.jpg") == os.path.join("circle", "in", "a.jpg")
    assert files.find("a.jpg") == os.path.join("in", "a.jpg")


def test_each_folder_is_listed_once_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, listed, scandir = make(tmp_path, "a/x.jpg", "b/y.jpg"), [], os.scandir

    def counted(path: str) -> object:
        listed.append(os.path.relpath(path, tmp_path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(files.find, ["A/x.jpg"] * 50))
    assert found == [os.path.join("a", "x.jpg")] * 50
    assert sorted(listed) == [".", "a"]
    assert [files.find("y.jpg") for _ in range(9)] == [os.path.join("b", "y.jpg")] * 9
    assert sorted(listed) == [".", ".", "a", "a", "b"]  # once for their names, once for all names


def test_a_large_tree_is_not_looked_through_to_its_end(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg", "a/b/2.jpg", "a/b/c/3.jpg")
    assert NearestFiles(tmp_path.resolve()).find("3.jpg") == os.path.join("a", "b", "c", "3.jpg")
    assert NearestFiles(tmp_path.resolve(), max_listed=3).find("3.jpg") is None
