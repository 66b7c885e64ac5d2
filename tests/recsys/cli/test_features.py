from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from recsys.bulk import build_features
from recsys.bundle import Bundle

Ask = Callable[..., Any]
Say = Callable[..., str]


def test_the_command_writes_what_the_function_writes(
    tiny_bundle: Path, tmp_path: Path, ask: Ask, say: Say, refusal: Say
) -> None:
    bundle, pairs, out = Bundle(tiny_bundle), tmp_path / "pairs.csv", tmp_path / "out.parquet"
    bundle.events.select("user_id", "item_id").head(9).write_csv(pairs)
    answer = ask("features", tiny_bundle, "--pairs", pairs, "--out", out)
    assert answer == {"rows": 9, "failed": {}, "files": [str(out)]}
    wanted = build_features(bundle, pairs, tmp_path / "wanted")
    assert pl.read_parquet(out).equals(pl.read_parquet(wanted.files))
    shown = say("features", tiny_bundle, "--pairs", pairs, "--out", tmp_path / "parts")
    assert "features of 9 of 9 pairs in" in shown
    early = ("--out", tmp_path / "early", "--as-of", "2001-01-01")
    message = refusal("features", tiny_bundle, "--pairs", pairs, *early)
    assert message.startswith("as_of must not be before the split of the bundle")
