from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.bulk import embed_items, embed_texts
from recsys.bundle import Bundle
from recsys.data.synthetic import Shop
from recsys.errors import DataError, MissingPartError, SchemaError
from recsys.pipeline import Run


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle(tiny_bundle)


def vectors(path: Path) -> np.ndarray:
    return pl.read_parquet(path)["embedding"].to_numpy()


def test_the_shops_own_items_get_the_embeddings_of_the_bundle(
    bundle: Bundle, tiny_shop: Shop, tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    count = embed_items(bundle, tiny_shop.items, out, images_root=tiny_shop.images)
    found = pl.read_parquet(out)
    assert count == len(found) == len(bundle.items)
    assert found.columns == ["id", "embedding"]
    assert found["id"].to_list() == bundle.items["item_id"].to_list()
    np.testing.assert_allclose(vectors(out), bundle.item_embeddings, atol=1e-5)


def test_any_format_will_do_and_pictures_are_looked_for_beside_the_table(
    bundle: Bundle, tiny_shop: Shop, tmp_path: Path
) -> None:
    picture = next(tiny_shop.images.rglob("*.jpg")).read_bytes()
    (tmp_path / "a.jpg").write_bytes(picture)
    (tmp_path / "items.csv").write_text(
        "item_id,title,image\n00123,Nordic lamp,\nb,Nordic lamp,a.jpg\nc,,a.jpg\nd,,\n"
    )
    assert embed_items(bundle, tmp_path / "items.csv", tmp_path / "out.parquet") == 4
    assert pl.read_parquet(tmp_path / "out.parquet")["id"].to_list() == ["00123", "b", "c", "d"]
    found = vectors(tmp_path / "out.parquet")
    wanted = bundle.embedder().queries(
        ["Nordic lamp", "Nordic lamp", None], [None, picture, picture]
    )
    np.testing.assert_allclose(found[:3], wanted, atol=1e-5)
    assert not found[3].any()


def test_bad_rows_are_left_out_and_bad_paths_leave_the_words(
    bundle: Bundle, tmp_path: Path
) -> None:
    rows = {"item_id": ["a", "a", "b"], "title": ["mug"] * 3, "image": ["../x.jpg", None, "gone"]}
    pl.DataFrame(rows).write_ndjson(tmp_path / "items.ndjson")
    out = tmp_path / "out.parquet"
    assert embed_items(bundle, tmp_path / "items.ndjson", out) == 2
    assert pl.read_parquet(out)["id"].to_list() == ["a", "b"]
    wanted = bundle.embedder().query("mug", None)
    np.testing.assert_allclose(vectors(out), np.stack([wanted, wanted]), atol=1e-5)


def test_an_item_whose_picture_cannot_be_read_keeps_its_words(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"no picture")
    items = pl.DataFrame({"item_id": ["a"], "title": ["nordic lamp"], "image": ["torn.jpg"]})
    items.write_parquet(tmp_path / "items.parquet")
    assert embed_items(bundle, tmp_path / "items.parquet", tmp_path / "out.parquet") == 1
    vector = pl.read_parquet(tmp_path / "out.parquet")["embedding"][0].to_numpy()
    np.testing.assert_allclose(vector, bundle.embedder().query("nordic lamp", None), atol=1e-5)
    assert "items" in caplog.text


def test_texts_are_numbered_by_line_and_are_where_a_query_is(
    bundle: Bundle, tmp_path: Path
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("nordic lamp\n\nCafé table\n", encoding="utf-8")
    out = tmp_path / "out.parquet"
    assert embed_texts(bundle, texts, out) == 3
    assert pl.read_parquet(out)["id"].to_list() == ["1", "2", "3"]
    found = vectors(out)
    wanted = bundle.embedder().queries(["nordic lamp", "Café table"], [None, None])
    np.testing.assert_allclose(found[[0, 2]], wanted, atol=1e-5)
    assert not found[1].any()


def test_a_file_that_was_there_is_replaced_and_nothing_is_left_beside_it(
    bundle: Bundle, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "out.parquet").write_bytes(b"of an earlier run")
    (tmp_path / "texts.txt").write_text("lamp\n")
    embed_texts(bundle, tmp_path / "texts.txt", folder / "out.parquet")
    assert len(pl.read_parquet(folder / "out.parquet")) == 1
    assert [path.name for path in folder.iterdir()] == ["out.parquet"]


@pytest.mark.parametrize("text", ["", "\n", " \n\t\n"])
def test_a_file_without_text_is_refused_and_what_was_there_stays(
    bundle: Bundle, tmp_path: Path, text: str
) -> None:
    (tmp_path / "texts.txt").write_text(text)
    out = tmp_path / "out.parquet"
    out.write_bytes(b"of an earlier run")
    with pytest.raises(DataError, match=r"one line that is not blank, got .*texts.txt"):
        embed_texts(bundle, tmp_path / "texts.txt", out)
    assert out.read_bytes() == b"of an earlier run"


def test_a_bundle_without_a_text_encoder_embeds_no_texts(tiny_run: Run, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("lamp\n")
    with pytest.raises(MissingPartError, match="no 'text' part"):
        embed_texts(
            Bundle(tiny_run.ablations["text-only"]), tmp_path / "texts.txt", tmp_path / "out"
        )


def test_a_table_that_cannot_be_read_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    with pytest.raises(DataError, match="nothing matches"):
        embed_items(bundle, tmp_path / "items.csv", out)
    (tmp_path / "items.csv").write_text("title\nlamp\n")
    with pytest.raises(SchemaError, match="column 'item_id' is missing"):
        embed_items(bundle, tmp_path / "items.csv", out)
    (tmp_path / "items.csv").write_text("item_id,title\n,lamp\n")
    with pytest.raises(DataError, match="table items must have a valid row, got none"):
        embed_items(bundle, tmp_path / "items.csv", out)
    assert not out.exists()
