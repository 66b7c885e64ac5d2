from datetime import UTC, datetime
from pathlib import Path

import pytest

from recsys.data.dataset import load_dataset
from recsys.data.sources.myntra import import_myntra
from recsys.data.tables import Tables
from recsys.errors import DataError, SchemaError

OURS = """item_id,title,master_category,sub_category,article_type,base_colour,usage,image
15970,"Turtle Check Men, Navy",Apparel,Topwear,Shirts,Navy Blue,Casual,images/15970.jpg
39386,Peter England Jeans,Apparel,Bottomwear,Jeans,,Casual,images/39386.jpg
"""
KAGGLE = """id,gender,masterCategory,subCategory,articleType,baseColour,usage,productDisplayName
15970,Men,Apparel,Topwear,Shirts,Navy Blue,Casual,Turtle Check Men, Navy
39386,Men,Apparel,Bottomwear,Jeans,,Casual,Peter England Jeans
"""


def publish(folder: Path, styles: str, *pictures: str) -> Path:
    (folder / "images").mkdir(parents=True)
    (folder / "styles.csv").write_text(styles)
    for name in pictures:
        (folder / "images" / name).write_bytes(name.encode())
    return folder


@pytest.mark.parametrize("styles", [OURS, KAGGLE], ids=["ours", "kaggle"])
def test_both_layouts_give_the_same_items(tmp_path: Path, styles: str) -> None:
    src = publish(tmp_path / "src", styles, "15970.jpg", "39386.jpg")

    imported = import_myntra(src, tmp_path / "out")
    items = load_dataset(Tables(imported.items), now=datetime.now(UTC), strict=True).items

    assert (imported.n_items, imported.events, imported.photos) == (2, None, None)
    assert items["item_id"].to_list() == ["15970", "39386"]
    assert items["title"].to_list() == ["Turtle Check Men, Navy", "Peter England Jeans"]
    assert items["category"].to_list() == [
        ["Apparel", "Topwear", "Shirts"],
        ["Apparel", "Bottomwear", "Jeans"],
    ]
    assert items["attributes"].to_list() == [
        [{"key": "base_colour", "value": "Navy Blue"}, {"key": "usage", "value": "Casual"}],
        [{"key": "usage", "value": "Casual"}],
    ]
    assert imported.images_root == tmp_path / "out"
    assert [(tmp_path / "out" / image).read_text() for image in items["image"]] == [
        "15970.jpg",
        "39386.jpg",
    ]


def test_an_item_whose_picture_was_not_published_has_no_image(tmp_path: Path) -> None:
    src = publish(tmp_path / "src", OURS, "15970.jpg")

    imported = import_myntra(src, tmp_path / "out")
    items = load_dataset(Tables(imported.items), now=datetime.now(UTC), strict=True).items

    assert items["image"].to_list() == ["images/15970.jpg", None]


def test_another_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"missing \['sub_category', .*got \['item_id', 'title'"):
        import_myntra(
            publish(tmp_path / "a", "item_id,title,master_category\n1,Mug,Home\n"), tmp_path / "out"
        )
    with pytest.raises(DataError, match="must have 8 fields"):
        import_myntra(publish(tmp_path / "b", OURS + "1163,Nike\n"), tmp_path / "out")
    with pytest.raises(SchemaError, match=r"got \[\]"):
        import_myntra(publish(tmp_path / "c", ""), tmp_path / "out")


def test_an_id_cannot_name_a_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").touch()
    src = publish(tmp_path / "src", OURS.replace("15970", "../../secret"))

    with pytest.raises(DataError, match="must lie inside it"):
        import_myntra(src, tmp_path / "out")

    assert not (tmp_path / "out").exists()
