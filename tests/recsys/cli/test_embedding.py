from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.bundle import Bundle
from recsys.data.synthetic import Shop

Ask = Callable[..., Any]
Say = Callable[..., str]


def test_texts_get_the_embeddings_of_queries(
    tiny_bundle: Path, tmp_path: Path, ask: Ask, say: Say
) -> None:
    (tmp_path / "texts.txt").write_text("nordic lamp\nblue mug\n")
    out = tmp_path / "out.parquet"
    answer = ask("embed", tiny_bundle, "--texts", tmp_path / "texts.txt", "--out", out)
    assert answer == {"rows": 2, "file": str(out)}
    wanted = Bundle(tiny_bundle).embedder().queries(["nordic lamp", "blue mug"], [None, None])
    found = pl.read_parquet(out)
    np.testing.assert_allclose(found["embedding"].to_numpy(), wanted, atol=1e-5)
    shown = say("embed", tiny_bundle, "--texts", tmp_path / "texts.txt", "--out", out)
    assert shown.startswith("2 embeddings in")


def test_items_get_the_embeddings_that_the_bundle_has(
    tiny_bundle: Path, tiny_shop: Shop, tmp_path: Path, ask: Ask
) -> None:
    out = tmp_path / "out.parquet"
    options = ("--items", tiny_shop.items, "--images-root", tiny_shop.images)
    answer = ask("embed", tiny_bundle, *options, "--out", out)
    bundle, found = Bundle(tiny_bundle), pl.read_parquet(out)
    assert answer == {"rows": len(bundle.items), "failed": {}, "files": [str(out)]}
    assert found["id"].equals(bundle.items["item_id"])
    np.testing.assert_allclose(found["embedding"].to_numpy(), bundle.item_embeddings, atol=1e-5)


def test_embed_needs_either_items_or_texts(tiny_bundle: Path, tmp_path: Path, refusal: Say) -> None:
    out = tmp_path / "out.parquet"
    both = ["--items", "items.csv", "--texts", "texts.txt"]
    for options, got in (([], "neither"), (both, "both")):
        message = refusal("embed", tiny_bundle, "--out", out, *options)
        assert message == f"exactly one of --items and --texts must be given, got {got}"
    assert not out.exists()


def test_embedding_an_empty_table_or_no_texts_is_refused(
    tiny_bundle: Path, tmp_path: Path, refusal: Say
) -> None:
    (tmp_path / "items.csv").write_text("item_id,title\n")
    (tmp_path / "texts.txt").write_text("\n \n")
    out = tmp_path / "out.parquet"
    message = refusal("embed", tiny_bundle, "--items", tmp_path / "items.csv", "--out", out)
    assert message == "table items must hold rows, got none"
    message = refusal("embed", tiny_bundle, "--texts", tmp_path / "texts.txt", "--out", out)
    assert message.startswith("texts must have at least one line that is not blank")
    assert not out.exists()


def test_the_folder_of_the_embeddings_is_created(
    tiny_bundle: Path, tmp_path: Path, ask: Ask
) -> None:
    (tmp_path / "texts.txt").write_text("nordic lamp\nred mug with a\u2028break\n")
    out = tmp_path / "new" / "out.parquet"
    answer = ask("embed", tiny_bundle, "--texts", tmp_path / "texts.txt", "--out", out)
    assert answer["rows"] == len(pl.read_parquet(out)) == 2


def test_a_text_file_that_is_not_utf_8_is_refused_by_name(
    tiny_bundle: Path, tmp_path: Path, refusal: Say
) -> None:
    (tmp_path / "texts.txt").write_bytes(b"caf\xe9")
    said = refusal(
        "embed", tiny_bundle, "--texts", tmp_path / "texts.txt", "--out", tmp_path / "o.parquet"
    )
    assert "must be UTF-8" in said
    assert "texts.txt" in said


def test_a_shard_writes_its_parts_and_prints_which_rows_were_left_out(
    tiny_bundle: Path, tmp_path: Path, ask: Ask, say: Say
) -> None:
    (tmp_path / "items.csv").write_text("item_id,title\na,lamp\na,mug\nb,\n")
    command = ("embed", tiny_bundle, "--items", tmp_path / "items.csv", "--out", tmp_path / "out")
    answer = ask(*command, "--shard", "0/1", "--precision", "32-true", "--device", "cpu")
    assert answer == {
        "rows": 1,
        "failed": {"embeddable": 1, "item_id_is_unique": 1},
        "files": [str(tmp_path / "out" / "part-00000.parquet")],
    }
    shown = say(*command)
    assert "items: 1 of 3 rows: item_id must not repeat an earlier row's" in shown
    assert "1 of 3 items embedded in" in shown


def test_a_shard_out_of_range_and_options_of_items_beside_texts_are_refused(
    tiny_bundle: Path, tmp_path: Path, refusal: Say
) -> None:
    command = ("embed", tiny_bundle, "--out", tmp_path / "out")
    for option in (("--shard", "0/2"), ("--engine", "ray")):
        message = refusal(*command, "--texts", tmp_path / "texts.txt", *option)
        assert message == "--shard and --engine must go with --items, got them with --texts"
    message = refusal(*command, "--items", tmp_path / "items.csv", "--shard", "2/2")
    assert message == "shard must be i/n with i from 0 to n - 1, such as 0/4, got 2/2"
