"""Tables of pictures: which rows are annotated, and why others are not."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recsys.bundle import Bundle
from recsys.curation.annotation import AnnotateOptions, annotate, annotate_table
from recsys.errors import DataError, SchemaError


def write(folder: Path, images: Sequence[str | None], **columns: Sequence[object]) -> Path:
    path = folder / "items.parquet"
    item_ids = [f"item-{n}" for n in range(len(images))]
    pl.DataFrame({"item_id": item_ids, "image": images, **columns}).write_parquet(path)
    return path


def test_every_picture_has_its_row_in_the_order_of_the_table(
    bundle: Bundle, pictures: list[Path], tmp_path: Path
) -> None:
    names = [path.name for path in reversed(pictures)]
    table, out = write(tmp_path, names, category=[["Home"]] * 8), tmp_path / "new" / "out.parquet"
    report = annotate_table(bundle, table, out)
    assert (report.n_rows, report.n_valid, report.lines()) == (8, 8, [])
    found = pl.read_parquet(out)
    assert found["item_id"].to_list() == [f"item-{n}" for n in range(8)]
    assert found["image"].to_list() == names
    assert found.drop("item_id", "image").equals(annotate(bundle, [*reversed(pictures)]))
    assert [path.name for path in out.parent.iterdir()] == ["out.parquet"]


def test_photos_need_no_item(bundle: Bundle, pictures: list[Path], tmp_path: Path) -> None:
    (tmp_path / "photos.csv").write_text("image,split\n0.png,train\n1.png,test\n")
    annotate_table(bundle, tmp_path / "photos.csv", tmp_path / "out.parquet")
    found = pl.read_parquet(tmp_path / "out.parquet")
    assert found.select("item_id", "image").rows() == [(None, "0.png"), (None, "1.png")]


def test_rows_without_a_good_picture_are_left_out_with_the_reason(
    bundle: Bundle,
    pictures: list[Path],
    tmp_path: Path,
) -> None:
    (tmp_path / "torn.png").write_bytes(pictures[0].read_bytes()[:60])
    images = ["0.png", None, "torn.png", "1.png", "gone.png", "../x.png", "2.png", "torn.png", ""]
    out, done = tmp_path / "out.parquet", []
    report = annotate_table(
        bundle,
        write(tmp_path, images),
        out,
        AnnotateOptions(rows_per_part=3),
        progress=lambda *step: done.append(step),
    )
    assert (report.n_rows, report.n_valid) == (9, 3)
    assert report.counts() == {
        "image|decodes": 2,
        "image|nullability": 2,
        "image|exists": 1,
        "image|inside_root": 1,
    }
    assert pl.read_parquet(out)["image"].to_list() == ["0.png", "1.png", "2.png"]
    failed = pl.read_parquet(tmp_path / "out.quarantine.parquet")
    assert failed["row"].to_list() == [2, 3, 5, 6, 8, 9]
    assert failed["item_id"].to_list() == [f"item-{n - 1}" for n in failed["row"]]
    assert failed.filter(row=3).select("rule", "got").row(0) == ("image|decodes", "torn.png")
    assert report.lines()[0].startswith(
        "pictures: 2 of 9 rows: image must be a picture that can be decoded; "
        "2 like 'torn.png': got 60 bytes of a damaged PNG file"
    )
    assert done == [("pictures", 3, 5), ("pictures", 5, 5)]


def test_a_second_run_replaces_the_files_of_the_first(
    bundle: Bundle, pictures: list[Path], tmp_path: Path
) -> None:
    out, quarantine = tmp_path / "out.parquet", tmp_path / "out.quarantine.parquet"
    annotate_table(bundle, write(tmp_path, ["0.png", "gone.png"]), out)
    assert quarantine.exists()
    annotate_table(
        bundle, write(tmp_path, ["0.png", "1.png"]), out, AnnotateOptions(min_probability=0.0)
    )
    assert not quarantine.exists()
    assert len(pl.read_parquet(out)) == 2


def test_parts_give_what_the_whole_gives(
    bundle: Bundle, pictures: list[Path], tmp_path: Path
) -> None:
    table = write(tmp_path, [path.name for path in pictures])
    options = AnnotateOptions(min_probability=0.9, temperatures={"attribute_usage": 2.0})
    annotate_table(bundle, table, tmp_path / "whole.parquet", options)
    annotate_table(bundle, table, tmp_path / "parts.parquet", replace(options, rows_per_part=3))
    whole, parts = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("whole", "parts"))
    assert_frame_equal(parts, whole, abs_tol=1e-5)
    assert whole["attribute_material"].null_count() > 0


def test_a_table_without_a_good_picture_is_refused_and_what_was_there_stays(
    bundle: Bundle, pictures: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    out.write_bytes(b"of an earlier run")
    with pytest.raises(DataError, match=r"every row failed\s+pictures: 2 of 2 rows: image"):
        annotate_table(bundle, write(tmp_path, ["gone.png", "gone.png"]), out)
    (tmp_path / "items.csv").write_text("item_id,title\na,lamp\n")
    with pytest.raises(SchemaError, match="column 'image' is missing"):
        annotate_table(bundle, tmp_path / "items.csv", out)
    with pytest.raises(DataError, match="nothing matches"):
        annotate_table(bundle, tmp_path / "gone.csv", out)
    nowhere = AnnotateOptions(images_root=tmp_path / "nowhere")
    with pytest.raises(DataError, match="images_root must be the folder of"):
        annotate_table(bundle, write(tmp_path, ["0.png"]), out, nowhere)
    with pytest.raises(ValueError, match=r"out must end in .parquet, got 'out.csv'"):
        annotate_table(bundle, write(tmp_path, ["0.png"]), tmp_path / "out.csv")
    with pytest.raises(ValueError, match="rows_per_part must be at least 1, got 0"):
        AnnotateOptions(rows_per_part=0)
    assert out.read_bytes() == b"of an earlier run"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
