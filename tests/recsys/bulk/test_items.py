import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.bulk import Embedded, EmbedOptions, Shard, embed_items
from recsys.bundle import Bundle
from recsys.data.progress import Progress
from recsys.errors import DataError, SchemaError

Shop = Callable[..., Path]
PART = 4  # rows, so that ten items are three parts


class OutageError(Exception):
    """The machine went away."""


def stop_after(rows: int) -> Callable[[str, int, int], None]:
    def progress(_: str, done: int, total: int) -> None:
        if done >= rows:
            raise OutageError

    return progress


def read(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "part-*.parquet")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def embed(
    bundle: Bundle, items: Path, out: Path, progress: Progress | None = None, **options: Any
) -> Embedded:
    chosen = EmbedOptions(**{"rows_per_part": PART, **options})
    return embed_items(bundle, items, out, chosen, progress=progress)


def test_every_item_is_where_a_query_of_its_words_and_picture_is(
    bundle: Bundle, shop: Shop, tmp_path: Path
) -> None:
    items = shop()
    done = embed(bundle, items, tmp_path / "out")
    found = read(tmp_path / "out")
    assert (done.n_rows, done.n_items, done.failures) == (10, 10, {})
    assert done.files == [tmp_path / "out" / f"part-0000{n}.parquet" for n in range(3)]
    assert found.schema == {
        "id": pl.String(),
        "embedding": pl.Array(pl.Float32, 8),
        "modalities": pl.List(pl.String),
    }
    table = pl.read_parquet(items)
    assert found["id"].to_list() == table["item_id"].to_list()
    embedder = bundle.embedder()
    for item, vector in zip(
        table.iter_rows(named=True), found["embedding"].to_numpy(), strict=True
    ):
        picture = (tmp_path / item["image"]).read_bytes() if item["image"] else None
        np.testing.assert_allclose(vector, embedder.query(item["title"], picture), atol=1e-5)
    assert found["modalities"].to_list()[:2] == [["text"], ["image", "text"]]


def test_how_the_table_is_cut_into_parts_changes_no_item(
    bundle: Bundle, shop: Shop, tmp_path: Path
) -> None:
    frames = []
    for size in (1, 3, 10, 100):
        embed(bundle, shop(), tmp_path / str(size), rows_per_part=size)
        frames.append(read(tmp_path / str(size)))
        assert frames[-1]["id"].equals(frames[0]["id"])
        np.testing.assert_allclose(
            frames[-1]["embedding"].to_numpy(), frames[0]["embedding"].to_numpy(), atol=1e-5
        )


def test_a_run_that_was_interrupted_ends_with_the_same_bytes_as_one_that_was_not(
    bundle: Bundle, shop: Shop, tmp_path: Path
) -> None:
    items = shop(image=["torn.jpg"] * 10)
    whole = embed(bundle, items, tmp_path / "whole")
    for rows in (4, 8):
        with pytest.raises(OutageError):
            embed(bundle, items, tmp_path / "out", progress=stop_after(rows))
    kept = (tmp_path / "out" / "part-00000.parquet").stat().st_mtime_ns
    reported: list[tuple[str, int, int]] = []
    resumed = embed(bundle, items, tmp_path / "out", progress=lambda *one: reported.append(one))
    assert reported == [("items", 10, 10)], "the parts of the earlier run count"
    assert (tmp_path / "out" / "part-00000.parquet").stat().st_mtime_ns == kept
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert resumed.failures == whole.failures == {"image|decodes": 10}
    assert embed(bundle, items, tmp_path / "out", progress=stop_after(0)) == resumed


def test_an_interruption_inside_a_part_leaves_nothing_of_it(
    bundle: Bundle, shop: Shop, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(OutageError):
        embed(bundle, shop(), out, progress=stop_after(1))
    assert {path.name for path in out.iterdir()} == {
        "manifest.json",
        "table.parquet",
        "part-00000.parquet",
    }
    embed(bundle, shop(), out)
    assert "table.parquet" not in contents(out), "the copy is removed when all parts are done"


def test_a_part_that_was_deleted_is_made_again(bundle: Bundle, shop: Shop, tmp_path: Path) -> None:
    items, out = shop(), tmp_path / "out"
    embed(bundle, items, out)
    whole = contents(out)
    (out / "part-00001.parquet").unlink()
    assert embed(bundle, items, out).n_items == 10
    assert contents(out) == whole


def test_shards_share_the_parts_and_are_together_the_whole(
    bundle: Bundle, shop: Shop, tmp_path: Path
) -> None:
    items = shop(title=[None] + ["mug"] * 9)
    whole = embed(bundle, items, tmp_path / "whole")
    shards = [embed(bundle, items, tmp_path / "out", shard=Shard(n, 2)) for n in (1, 0)]
    assert [[file.name for file in one.files] for one in shards] == [
        ["part-00001.parquet"],
        ["part-00000.parquet", "part-00002.parquet"],
    ]
    assert [one.n_rows for one in shards] == [4, 6]
    assert sum(one.n_items for one in shards) == whole.n_items == 9
    assert [one.failures for one in shards] == [{}, {"embeddable": 1}]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_shard_without_a_valid_row_is_done_and_says_why_it_is_empty(
    bundle: Bundle, shop: Shop, tmp_path: Path
) -> None:
    # The second of three parts has no id at all.
    items = shop(item_id=[None if 4 <= n < 8 else f"item-{n}" for n in range(10)])
    whole = embed(bundle, items, tmp_path / "whole")
    shards = [embed(bundle, items, tmp_path / "out", shard=Shard(n, 2)) for n in range(2)]
    assert [(one.n_rows, one.n_items) for one in shards] == [(6, 6), (4, 0)]
    assert whole.failures == shards[1].failures == {"item_id|nullability": 4}
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert embed(bundle, items, tmp_path / "out", shard=Shard(1, 2)) == shards[1], "once more"


def test_shards_of_folders_of_their_own_have_every_item_once(
    bundle: Bundle, shop: Shop, tmp_path: Path
) -> None:
    for n in range(3):
        embed(bundle, shop(), tmp_path / str(n), shard=Shard(n, 3))
    ids = pl.concat([read(tmp_path / str(n))["id"] for n in range(3)])
    assert sorted(ids) == sorted(f"item-{n}" for n in range(10))


def test_bad_rows_are_kept_apart_with_their_reasons_and_counted(
    bundle: Bundle, shop: Shop, tmp_path: Path
) -> None:
    items = shop(
        item_id=["a", "b", "", "a", "c", "d", "e", "f", "g", "b"],
        title=["mug"] * 5 + [None, "lamp", "lamp", None, "lamp"],
        image=[None, "torn.jpg", None, None, None, "torn.jpg", "../x.jpg", "gone.jpg", None, None],
        price=[1.0, 1.0, 1.0, 1.0, -1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
    )
    done = embed(bundle, items, tmp_path / "out")
    assert read(tmp_path / "out")["id"].to_list() == ["a", "b", "c", "e", "f"]
    assert done.n_items == 5
    assert done.failures == {
        "embeddable": 2,
        "image|decodes": 2,
        "item_id_is_unique": 2,
        "image|exists": 1,
        "image|inside_root": 1,
        "item_id|nullability": 1,
        "price|min": 1,
    }
    failed = pl.read_parquet(tmp_path / "out" / "quarantine-*.parquet")
    assert failed.filter(rule="item_id_is_unique")["row"].to_list() == [4, 10]
    assert failed.filter(rule="embeddable")["row"].to_list() == [6, 9]
    assert failed.filter("kept")["row"].to_list() == [2, 5, 7, 8]
    assert failed.filter(rule="image|decodes")["got"].to_list() == ["torn.jpg"] * 2
    assert "items: 2 of 10 rows: item_id must not repeat an earlier row's" in done.lines()
    assert "items: 2 of 10 rows: must have words or a picture that" in "\n".join(done.lines())
    assert len(done.lines()) == 7


def test_an_item_whose_picture_cannot_be_read_is_where_its_words_are(
    bundle: Bundle, shop: Shop, tmp_path: Path
) -> None:
    embed(bundle, shop(image=["torn.jpg", "0.jpg"] * 5), tmp_path / "out")
    found = read(tmp_path / "out")
    assert found["modalities"].to_list() == [["text"], ["image", "text"]] * 5
    wanted = bundle.embedder().query("nordic nordic", None)
    np.testing.assert_allclose(found["embedding"].to_numpy()[0], wanted, atol=1e-5)


def test_what_a_bundle_has_no_tower_for_is_not_embedded(
    untrained: Callable[..., Bundle], shop: Shop, tmp_path: Path
) -> None:
    done = embed(untrained(towers=["image"]), shop(), tmp_path / "out")
    assert done.failures == {"embeddable": 3}
    assert set(read(tmp_path / "out")["modalities"].explode()) == {"image"}


def test_half_precision_of_both_towers_is_close_and_not_the_same(
    bundle: Bundle, shop: Shop, tmp_path: Path
) -> None:
    frames = {}
    for precision in ("32-true", "bf16-mixed"):
        embed(bundle, shop(), tmp_path / precision, precision=precision)
        frames[precision] = read(tmp_path / precision)
    full, half = (frame["embedding"].to_numpy() for frame in frames.values())
    np.testing.assert_allclose(half, full, atol=0.05)
    assert (half != full).any(axis=1).all()


@pytest.mark.parametrize("name", ["items.csv", "items.ndjson", "items-*.parquet"])
def test_any_format_will_do(bundle: Bundle, shop: Shop, tmp_path: Path, name: str) -> None:
    table = pl.read_parquet(shop()).with_columns(
        item_id=pl.col("item_id").str.replace("item-", "00")
    )
    if name == "items.csv":
        table.write_csv(tmp_path / name)
    elif name == "items.ndjson":
        table.write_ndjson(tmp_path / name)
    else:
        table[:7].write_parquet(tmp_path / "items-a.parquet")
        table[7:].write_parquet(tmp_path / "items-b.parquet")
    embed(bundle, tmp_path / name, tmp_path / "out")
    found = read(tmp_path / "out")
    assert found["id"].to_list() == [f"00{n}" for n in range(10)]
    assert found["modalities"].list.contains("image").sum() == 7


def test_one_file_has_all_parts_and_nothing_is_left_beside_it(
    bundle: Bundle, shop: Shop, tmp_path: Path
) -> None:
    items, out = shop(image=["gone.jpg"] * 10), tmp_path / "new" / "out.parquet"
    embed(bundle, items, tmp_path / "parts")
    with pytest.raises(OutageError):
        embed(bundle, items, out, progress=stop_after(4))
    assert not out.exists()
    done = embed(bundle, items, out)
    assert done.files == [out]
    assert pl.read_parquet(out).equals(read(tmp_path / "parts"))
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "out.parquet",
        "out.quarantine.parquet",
    ]
    assert len(pl.read_parquet(out.with_name("out.quarantine.parquet"))) == 10
    embed(bundle, shop(), out)
    assert set(pl.read_parquet(out)["modalities"].explode()) == {"image", "text"}, "is replaced"
    assert [path.name for path in out.parent.iterdir()] == ["out.parquet"], "nothing failed"


def test_a_folder_of_another_run_is_refused_and_stays_as_it_is(
    bundle: Bundle, untrained: Callable[..., Bundle], shop: Shop, tmp_path: Path
) -> None:
    items, out = shop(), tmp_path / "out"
    embed(bundle, items, out)
    before = contents(out)
    other = untrained(seed=1)
    with pytest.raises(DataError, match=rf"bundle '{bundle.version}', not '{other.version}'; del"):
        embed(other, items, out)
    with pytest.raises(DataError, match="was begun with precision '32-true', not 'bf16-mixed'"):
        embed(bundle, items, out, precision="bf16-mixed")
    with pytest.raises(DataError, match="was begun with images_root"):
        embed(bundle, items, out, images_root=tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"was begun with table '.*rows_per_part 4, not 5"):
        embed(bundle, shop(11), out, rows_per_part=5)
    assert contents(out) == before
    (out / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"out has no manifest.json"):
        embed(bundle, items, out)
    for damage in ("{", "[]", json.dumps({"bundle": "x"})):
        (out / "manifest.json").write_text(damage)
        with pytest.raises(DataError, match=r"manifest.json is damaged"):
            embed(bundle, items, out)


def test_no_rows_of_earlier_parts_stay_in_memory(
    bundle: Bundle, shop: Shop, tmp_path: Path
) -> None:
    def alive() -> int:
        return sum(len(one) for one in gc.get_objects() if type(one) is pl.DataFrame)

    before, seen = alive(), []
    embed(
        bundle,
        shop(40),
        tmp_path / "out",
        rows_per_part=10,
        progress=lambda *_: seen.append(alive() - before),
    )
    assert len(seen) == 4
    assert max(seen) <= 10


def test_arguments_that_cannot_be_used_are_named(
    bundle: Bundle, shop: Shop, tmp_path: Path
) -> None:
    items, out = shop(), tmp_path / "out"
    with pytest.raises(ValueError, match="engine must be one of local, ray, got 'spark'"):
        embed(bundle, items, out, engine="spark")
    with pytest.raises(ValueError, match=r"precision must be one of auto, .*, got 'fp8'"):
        embed(bundle, items, out, precision="fp8")
    with pytest.raises(ValueError, match="rows_per_part must be at least 1, got 0"):
        embed(bundle, items, out, rows_per_part=0)
    with pytest.raises(ValueError, match="out must be a folder where there are shards, got"):
        embed(bundle, items, tmp_path / "out.parquet", shard=Shard(0, 2))
    with pytest.raises(ValueError, match=r"or a file that ends in .parquet, got .*out.csv"):
        embed(bundle, items, tmp_path / "out.csv")
    with pytest.raises(ValueError, match=r"out must be a folder, or a file that ends in .parquet"):
        embed(bundle, items, tmp_path / "0.jpg")
    assert not out.exists()
    with pytest.raises(ValueError, match=r"shard must be one of 3, .* of 4 rows, got 3/4"):
        embed(bundle, items, out, shard=Shard(3, 4))


def test_a_table_that_cannot_be_used_is_refused_and_what_was_there_stays(
    bundle: Bundle, tmp_path: Path
) -> None:
    items, out = tmp_path / "items.csv", tmp_path / "out.parquet"
    out.write_bytes(b"of an earlier run")
    with pytest.raises(DataError, match="nothing matches"):
        embed(bundle, items, out)
    items.write_text("title\nlamp\n")
    with pytest.raises(SchemaError, match="column 'item_id' is missing"):
        embed(bundle, items, out)
    items.write_text("item_id,title\n")
    with pytest.raises(DataError, match="table items must hold rows, got none"):
        embed(bundle, items, out)
    items.write_text("item_id,title\n,lamp\n")
    with pytest.raises(
        DataError, match=r"must have a valid row, got none\s+items: 1 of 1 rows: it"
    ):
        embed(bundle, items, out)
    assert out.read_bytes() == b"of an earlier run"
    items.write_text("item_id,title\na,lamp\n")
    assert embed(bundle, items, out).n_items == 1, "a table that was mended is not refused"
