import tarfile
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from recsys.data.dataset import load_dataset
from recsys.data.sources.grocery_store import import_grocery_store
from recsys.data.tables import Tables
from recsys.errors import DataError, SchemaError

HEADER = (
    "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),"
    "Iconic Image Path (str),Product Description Path (str)"
)
CLASSES = {"Golden-Delicious": ("0", "Fruit/Apple"), "Oatly-Oat-Milk": ("1", "Packages/Oat-Milk")}


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """Return the published layout with two classes and four photos."""
    src = tmp_path / "dataset"
    src.mkdir()
    lines = [HEADER]
    for name, (code, folder) in CLASSES.items():
        iconic = f"iconic-images-and-descriptions/{folder}/{name}/{name}"
        (src / iconic).parent.mkdir(parents=True)
        (src / f"{iconic}_Iconic.jpg").write_bytes(f"iconic {name}".encode())
        (src / f"{iconic}_Description.txt").write_text(f"{name} from\nArlagårdar. ", "utf-8")
        coarse = folder.split("/")[1]
        lines.append(
            f"{name},{code},{coarse},{code},/{iconic}_Iconic.jpg,/{iconic}_Description.txt"
        )
    (src / "classes.csv").write_text("\n".join(lines) + "\n")
    for split, codes in {"train": "01", "val": "0", "test": "1"}.items():
        rows = []
        for code in codes:
            name, (_, folder) = list(CLASSES.items())[int(code)]
            photo = f"{split}/{folder}/{name}/{name}_001.jpg"
            (src / photo).parent.mkdir(parents=True)
            (src / photo).write_bytes(photo.encode())
            rows.append(f"{photo}, {code}, {code}\n")
        (src / f"{split}.txt").write_text("".join(rows))
    return src


def test_items_are_the_fine_classes(src: Path, tmp_path: Path) -> None:
    imported = import_grocery_store(src, tmp_path / "out")
    items = load_dataset(Tables(imported.items), now=datetime.now(UTC), strict=True).items

    assert imported.n_items == 2
    assert items["item_id"].to_list() == ["Golden-Delicious", "Oatly-Oat-Milk"]
    assert items["title"].to_list() == ["Golden Delicious", "Oatly Oat Milk"]
    assert items["description"][0] == "Golden-Delicious from Arlagårdar."
    assert items["category"].to_list() == [
        ["Fruit", "Apple", "Golden Delicious"],
        ["Packages", "Oat Milk", "Oatly Oat Milk"],
    ]
    pictures = [(tmp_path / "out" / image).read_text() for image in items["image"]]
    assert pictures == ["iconic Golden-Delicious", "iconic Oatly-Oat-Milk"]


def test_photos_keep_their_split_and_know_their_item(src: Path, tmp_path: Path) -> None:
    imported = import_grocery_store(src, tmp_path / "out")
    assert imported.photos is not None
    tables = Tables(imported.items, photos=imported.photos)
    photos = load_dataset(tables, now=datetime.now(UTC), strict=True).photos

    assert photos is not None
    assert imported.n_photos == len(photos) == 4
    assert photos["split"].to_list() == ["train", "train", "val", "test"]
    assert photos["item_id"].to_list() == [
        "Golden-Delicious",
        "Oatly-Oat-Milk",
        "Golden-Delicious",
        "Oatly-Oat-Milk",
    ]
    assert photos["category"][1].to_list() == ["Packages", "Oat Milk", "Oatly Oat Milk"]
    assert all((tmp_path / "out" / image).read_text() == image for image in photos["image"])


def test_an_archive_gives_the_same_as_its_folder_which_is_left_alone(
    src: Path, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(src, "grocery-store")
    before = sorted(src.rglob("*"))

    for name, source in {"folder": src, "archive": tmp_path / "a.tar"}.items():
        import_grocery_store(source, tmp_path / name)

    assert sorted(src.rglob("*")) == before
    folder, archived = (
        sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*"))
        for name in ("folder", "archive")
    )
    assert folder == archived
    for table in ("items.parquet", "photos.parquet"):
        left, right = (pl.read_parquet(tmp_path / name / table) for name in ("folder", "archive"))
        assert left.equals(right)


def test_a_missing_picture_is_an_error_that_leaves_nothing(src: Path, tmp_path: Path) -> None:
    photo = next((src / "val").rglob("*.jpg"))
    photo.unlink()

    with pytest.raises(DataError, match=r"1 are missing, such as val/Fruit/.*_001\.jpg"):
        import_grocery_store(src, tmp_path / "out")

    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def test_damaged_lists_are_errors_that_say_which(src: Path, tmp_path: Path) -> None:
    (src / "val.txt").write_text("val/a.jpg\n")
    with pytest.raises(DataError, match=r"every line of .*val\.txt must be 'path, class, coarse"):
        import_grocery_store(src, tmp_path / "out")

    (src / "val.txt").unlink()
    with pytest.raises(DataError, match=r"val\.txt cannot be read"):
        import_grocery_store(src, tmp_path / "out")

    classes = (src / "classes.csv").read_text()
    (src / "classes.csv").write_text(classes.replace("_Description.txt", "_Text.txt", 1))
    with pytest.raises(DataError, match=r"must hold '/iconic.*_Text\.txt', as classes\.csv says"):
        import_grocery_store(src, tmp_path / "out")

    (src / "classes.csv").write_text("name\nApple\n")
    with pytest.raises(SchemaError, match=r"published columns, missing \['Class Name \(str\)'"):
        import_grocery_store(src, tmp_path / "out")


def test_a_photo_of_an_unknown_class_is_unlabelled(src: Path, tmp_path: Path) -> None:
    photo = next((src / "val").rglob("*.jpg")).relative_to(src)
    (src / "val.txt").write_text(f"{photo}, 99, 0\n")

    imported = import_grocery_store(src, tmp_path / "out")
    assert imported.photos is not None
    dataset = load_dataset(Tables(imported.items, photos=imported.photos), now=datetime.now(UTC))

    assert dataset.photos is not None
    unlabelled = dataset.photos.filter(pl.col("item_id").is_null())
    assert unlabelled["image"].to_list() == [str(photo)]
    assert unlabelled["category"].list.len().to_list() == [0]
