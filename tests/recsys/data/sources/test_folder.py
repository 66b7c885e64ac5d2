import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.sources.folder import HELD_OUT_FROM, hold_out, import_folder
from recsys.errors import DataError
from tests.planted import smooth_picture

Draw = Callable[..., None]


@pytest.fixture
def src(tmp_path: Path) -> Path:
    src = tmp_path / "src"
    src.mkdir()
    return src


@pytest.fixture
def draw(src: Path) -> Draw:
    """Write pictures, all different unless they have one seed."""
    seeds = iter(range(10_000))

    def write(*names: str, seed: int | None = None) -> None:
        for name in names:
            path = src / name
            path.parent.mkdir(parents=True, exist_ok=True)
            smooth_picture(next(seeds) if seed is None else seed).save(path, "PNG")

    return write


def imported(src: Path, out: Path) -> pl.DataFrame:
    import_folder(src, out)
    return pl.read_parquet(out / "photos.parquet")


def test_folders_are_the_category_of_the_pictures_in_them(
    src: Path, draw: Draw, tmp_path: Path
) -> None:
    draw("Fruit/Apple/1.png", "Fruit/2.png", "Milk/deep/er/3.png", "4.png", ".hidden/5.png")
    (src / ".DS_Store").touch()
    photos = imported(src, tmp_path / "out")
    assert dict(photos.select("image", "category").rows()) == {
        "images/4.png": [],
        "images/Fruit/2.png": ["Fruit"],
        "images/Fruit/Apple/1.png": ["Fruit", "Apple"],
        "images/Milk/deep/er/3.png": ["Milk", "deep", "er"],
    }
    assert set(photos["split"]) == {"train"}  # no class has enough pictures to hold one out
    for image in photos["image"]:
        name = image.removeprefix("images/")
        assert (tmp_path / "out" / image).read_bytes() == (src / name).read_bytes()


def test_folders_named_after_splits_are_the_splits(src: Path, draw: Draw, tmp_path: Path) -> None:
    draw("train/cat/1.png", "Validation/cat/2.png", "test/cat/deep/3.png", "train/4.png")
    photos = imported(src, tmp_path / "out").sort("image")
    assert photos["split"].to_list() == ["val", "test", "train", "train"]
    assert photos["category"].to_list() == [["cat"], ["cat", "deep"], [], ["cat"]]


@pytest.mark.parametrize(
    ("folders", "counts"),
    [
        (["cat"], {"train": 16, "val": 2, "test": 2}),
        (["train/cat"], {"train": 16, "val": 2, "test": 2}),
        (["train/cat", "test/cat"], {"train": 18, "val": 2, "test": 20}),
        (["train/cat", "val/cat"], {"train": 20, "val": 20}),
    ],
)
def test_what_is_missing_is_held_out_by_the_bytes_of_the_pictures(
    src: Path, draw: Draw, tmp_path: Path, folders: list[str], counts: dict[str, int]
) -> None:
    for folder in folders:
        draw(*(f"{folder}/{n}.png" for n in range(20)))
    photos = imported(src, tmp_path / "out")
    assert Counter(photos["split"]) == counts
    for n in range(20):  # other names change nothing
        path = src / folders[0] / f"{n}.png"
        path.rename(path.with_name(f"x{99 - n}.jpg"))
    again = imported(src, tmp_path / "again")

    def held_out(table: pl.DataFrame, root: Path) -> set[bytes]:
        chosen = table.filter(pl.col("split") != "train")["image"]
        return {(root / image).read_bytes() for image in chosen}

    assert held_out(again, tmp_path / "again") == held_out(photos, tmp_path / "out")


@given(st.lists(st.integers(0, 60).map(str)), st.sampled_from([(), ("val",), ("val", "test")]))
def test_a_tenth_is_held_out_for_each_split_and_most_of_a_class_is_left(
    digests: list[str], splits: tuple[str, ...]
) -> None:
    found, distinct = hold_out(digests, splits), {*digests}
    counts = Counter(found.values())
    assert found.keys() <= distinct
    assert found == hold_out(sorted(digests, reverse=True), splits)
    if len(distinct) < HELD_OUT_FROM:
        assert not found
    elif splits:
        assert set(counts) == set(splits)
        assert all(max(1, abs(count - len(distinct) / 10)) <= 1 for count in counts.values())
        assert len(distinct) - len(found) > len(distinct) / 2


def test_files_that_are_no_pictures_are_counted_and_left_out(
    src: Path, draw: Draw, tmp_path: Path
) -> None:
    draw("cat/1.png", "cat/2.png")
    (src / "cat" / "notes.txt").write_text("hello")
    (src / "cat" / "torn.png").write_bytes((src / "cat" / "1.png").read_bytes()[:60])
    result = import_folder(src, tmp_path / "out")
    assert (result.n_photos, result.n_items, result.items) == (2, 0, None)
    assert "photos: 2 of 4 rows: image must be a picture that can be decoded" in result.notes[0]
    failures = pl.read_parquet(tmp_path / "out" / "photos.quarantine.parquet")
    assert failures["got"].to_list() == ["cat/notes.txt", "cat/torn.png"]
    assert sorted(os.listdir(tmp_path / "out" / "images" / "cat")) == ["1.png", "2.png"]


def test_links_are_followed_to_files_inside_the_folder_only(
    src: Path, draw: Draw, tmp_path: Path
) -> None:
    draw("cat/1.png", "dog/2.png")
    (tmp_path / "outside.png").write_bytes((src / "cat" / "1.png").read_bytes())
    (src / "dog" / "inside.png").symlink_to(src / "cat" / "1.png")
    (src / "dog" / "outside.png").symlink_to(tmp_path / "outside.png")
    (src / "dog" / "loop").symlink_to(src)
    photos = imported(src, tmp_path / "out")
    assert photos["image"].to_list() == [
        "images/cat/1.png",
        "images/dog/2.png",
        "images/dog/inside.png",
    ]
    assert not (tmp_path / "out" / "images" / "dog" / "inside.png").is_symlink()
    failures = pl.read_parquet(tmp_path / "out" / "photos.quarantine.parquet")
    assert dict(failures.select("got", "rule").rows()) == {
        "dog/loop": "image|exists",
        "dog/outside.png": "image|inside_root",
    }


def test_copies_in_two_splits_or_classes_and_small_classes_are_noted(
    src: Path, draw: Draw, tmp_path: Path
) -> None:
    draw("train/cat/1.png", "test/cat/2.png", "train/dog/3.png", seed=7)
    draw(*(f"train/cat/n{n}.png" for n in range(4)))
    notes = import_folder(src, tmp_path / "out").notes
    assert notes[0] == "1 of 2 classes have fewer than 5 pictures, such as 'dog'"
    assert "1 of 5 different pictures are in several splits, such as 'test/cat/2.png'" in notes[1]
    assert "1 of 5 different pictures are in several classes" in notes[2]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "src must have pictures, in a folder for each class, but it is empty"),
        (["train/a/1", "test/a/2", "other/3"], "either splits or classes .* splits test, train"),
        (["data/train/a/1", "data/test/a/2"], "got data and the splits test, train; name"),
        (["test/a/1", "val/a/2"], "must have a folder train beside test, val"),
        (["a > b/1"], "names of classes must not have ' > '"),
    ],
)
def test_a_folder_of_another_layout_is_refused(
    src: Path, draw: Draw, tmp_path: Path, names: list[str], message: str
) -> None:
    draw(*names)
    with pytest.raises(DataError, match=message):
        import_folder(src, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_pictures_and_a_file_are_refused(src: Path, tmp_path: Path) -> None:
    (src / "a.txt").touch()
    with pytest.raises(DataError, match="must have pictures, but no file can be used"):
        import_folder(src, tmp_path / "out")
    with pytest.raises(DataError, match=r"src must be a folder .* unpack an archive first"):
        import_folder(src / "a.txt", tmp_path / "out")
    with pytest.raises(ValueError, match="out must lie outside of"):
        import_folder(src, src / "tables")


def test_a_name_that_is_not_utf_8_is_refused(src: Path, tmp_path: Path) -> None:
    (src / os.fsdecode(b"caf\xe9.png")).touch()
    with pytest.raises(DataError, match=r"names of files must be UTF-8, got b'caf\\xe9.png'"):
        import_folder(src, tmp_path / "out")
