from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.bulk import embed_texts
from recsys.bundle import Bundle
from recsys.errors import DataError, MissingPartError


def test_texts_are_numbered_by_line_and_are_where_a_query_is(
    bundle: Bundle, tmp_path: Path
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("nordic lamp\n\nCafé table\n", encoding="utf-8")
    out = tmp_path / "out.parquet"
    assert embed_texts(bundle, texts, out) == 3
    found = pl.read_parquet(out)
    assert found["id"].to_list() == ["1", "2", "3"]
    wanted = bundle.embedder().queries(["nordic lamp", "Café table"], [None, None])
    np.testing.assert_allclose(found["embedding"].to_numpy()[[0, 2]], wanted, atol=1e-5)
    assert not found["embedding"].to_numpy()[1].any()


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


def test_a_bundle_without_a_text_encoder_embeds_no_texts(
    untrained: Callable[..., Bundle], tmp_path: Path
) -> None:
    (tmp_path / "texts.txt").write_text("lamp\n")
    with pytest.raises(MissingPartError, match="no 'text' part"):
        embed_texts(untrained(towers=["image"]), tmp_path / "texts.txt", tmp_path / "out.parquet")
