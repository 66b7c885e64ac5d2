import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recsys.data.pictures import Broken, broken_rule, check_pictures, picture_fault
from recsys.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return an images root that has ``a.jpg`` and ``shoes/b.jpg``, with ``secret.jpg`` beside."""
    root = tmp_path / "images"
    (root / "shoes").mkdir(parents=True)
    for path in (root / "a.jpg", root / "shoes" / "b.jpg", tmp_path / "secret.jpg"):
        path.write_bytes(b"picture")
    return root.resolve()


@pytest.mark.parametrize("name", ["a.jpg", "shoes/b.jpg", "./shoes//b.jpg"])
def test_a_file_below_the_root_is_good(root: Path, name: str) -> None:
    assert broken_rule(name, root) is None


@pytest.mark.parametrize(
    "name",
    [
        "../secret.jpg",
        "shoes/../../secret.jpg",
        "shoes/../a.jpg",
        "..\\secret.jpg",
        "/etc/passwd",
        "\\\\server\\share\\a.jpg",
        "C:\\a.jpg",
        "C:/a.jpg",
        "a.jpg\0.png",
    ],
)
def test_a_path_that_could_leave_the_root_is_refused_on_every_system(root: Path, name: str) -> None:
    assert broken_rule(name, root) == "image|inside_root"


def test_an_absolute_path_into_the_root_is_refused_too(root: Path) -> None:
    assert broken_rule(str(root / "a.jpg"), root) == "image|inside_root"


def test_a_link_out_of_the_root_is_refused_and_one_inside_is_good(root: Path) -> None:
    (root / "out.jpg").symlink_to(root.parent / "secret.jpg")
    (root / "outside").symlink_to(root.parent)
    (root / "in.jpg").symlink_to(root / "a.jpg")

    assert broken_rule("out.jpg", root) == "image|inside_root"
    assert broken_rule("outside/secret.jpg", root) == "image|inside_root"
    assert broken_rule("in.jpg", root) is None


def test_a_root_that_is_a_link_is_fine(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)

    checked = check_pictures(["a.jpg"], tmp_path / "link", check_image=None, progress=None)
    assert checked == ({}, {})


@pytest.mark.parametrize(
    "name",
    ["none.jpg", "shoes", "none/a.jpg", "a.jpg/b.jpg", "loop.jpg", pytest.param("x" * 999, id="x")],
)
def test_a_path_without_a_file_is_missing(root: Path, name: str) -> None:
    (root / "loop.jpg").symlink_to(root / "loop.jpg")

    assert broken_rule(name, root) == "image|exists"


def test_the_callers_check_decides_what_can_be_decoded(root: Path) -> None:
    seen: list[Path] = []

    def check_image(path: Path) -> str | None:
        seen.append(path)
        return None if path.name == "a.jpg" else "it is a page"

    names = ["a.jpg", "shoes/b.jpg", "none.jpg", "../secret.jpg"]
    broken = check_pictures(names, root, check_image=check_image, progress=None).broken

    assert broken == {
        "shoes/b.jpg": Broken("image|decodes", "it is a page"),
        "none.jpg": Broken("image|exists", None),
        "../secret.jpg": Broken("image|inside_root", None),
    }
    assert sorted(seen) == [root / "a.jpg", root / "shoes" / "b.jpg"]  # nothing outside was opened


def test_progress_counts_every_picture(root: Path) -> None:
    calls: list[tuple[str, int, int]] = []

    check_pictures(
        ["a.jpg", "b.jpg"],
        root,
        check_image=None,
        progress=lambda stage, done, total: calls.append((stage, done, total)),
    )

    assert calls == [("pictures", 1, 2), ("pictures", 2, 2)]


def test_a_root_that_is_no_folder_is_an_error_only_if_a_picture_is_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"images_root must be the folder of 'a.jpg', got .*typo"):
        check_pictures(["a.jpg"], root / "typo", check_image=None, progress=None)

    checked = check_pictures([], root / "typo", check_image=None, progress=None)
    assert checked == ({}, {})


def test_the_nearest_file_of_a_wrong_path_is_named(root: Path) -> None:
    names = ["A.JPG", "https://cdn.example.com/shoes/b.jpg?v=2", "/a.jpg", "..\\a.jpg", "c.jpg"]

    broken = check_pictures(names, root, check_image=None, progress=None).broken

    assert {name: one.reason for name, one in broken.items()} == {
        "A.JPG": "did you mean 'a.jpg'?",
        "https://cdn.example.com/shoes/b.jpg?v=2": "did you mean 'shoes/b.jpg'?",
        "/a.jpg": "did you mean 'a.jpg'?",
        "..\\a.jpg": "did you mean 'a.jpg'?",
        "c.jpg": None,
    }


def test_a_name_in_another_form_of_unicode_is_its_files(root: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café.jpg") for form in ("NFC", "NFD"))
    (root / decomposed).write_bytes(b"picture")
    seen: list[Path] = []

    checked = check_pictures(
        [composed, f"./{composed}"], root, check_image=lambda path: seen.append(path), progress=None
    )

    assert checked == ({}, {composed: decomposed, f"./{composed}": decomposed})
    assert seen == [root / decomposed] * 2
    (root / composed).write_bytes(b"another picture")
    again = check_pictures([composed, decomposed], root, check_image=None, progress=None)
    assert again == ({}, {}), "each is a file of its own"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_is_readable_exactly_if_all_of_it_can_be_decoded(
    tmp_path: Path, kind: str
) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    whole = tmp_path / "whole"
    Image.fromarray(colours).resize((640, 480)).save(whole, kind)
    data = whole.read_bytes()
    assert picture_fault(whole) is None
    for length in (len(data) // 3, len(data) // 2, len(data) * 8 // 10):
        (tmp_path / "part").write_bytes(data[:length])
        fault = picture_fault(tmp_path / "part")
        assert fault is not None, f"{length} of {len(data)} bytes"
        assert fault.startswith("got ")
