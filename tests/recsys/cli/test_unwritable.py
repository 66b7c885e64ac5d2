"""Every command that writes refuses a place that it cannot write to, in one line."""

import shlex
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from recsys.data.synthetic import Shop

Say = Callable[..., str]

COMMANDS = (
    "demo --out {out}",
    "check {config} --out {out}",
    "import online-retail {purchases} {out}",
    "train {config} --out {out}",
    "train {config} --preview {out}.png",
    "evaluate {bundle} --out {out}",
    "embed {bundle} --items {items} --images-root {images} --out {out}",
    "embed {bundle} --items {items} --images-root {images} --out {out}.parquet",
    "embed {bundle} --texts {texts} --out {out}.parquet",
    "duplicates {bundle} --out {out}.html",
    "annotate {bundle} --items {items} --images-root {images} --out {out}.parquet",
    "variants {bundle} --out {out}.parquet",
    "serve {bundle} --port 0 --state {out}",
    "items export {bundle} --state {images} --out {out}.parquet",
    "events export --state {images} --out {out}",
    "review ask {bundle} {photos} --images-root {images} --out {out}.csv",
    "review learn {bundle} {labelled} {out}.csv --images-root {images}",
    "text report {bundle} {config} --out {out}",
    "vision report {bundle} {config} --no-robustness --out {out}",
    "vision explain {bundle} {photo} --out {out}.png",
    "vision select {bundle} {config} -k 1 --out {out}.csv",
    "vision tune {config} --trials 1 --out {out}",
    "vision folds {config} --count 2 --out {out}",
    "vision export {bundle} --out {out}",
)
PURCHASES = """InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
1,71053,WHITE LANTERN,1,2010-12-01 08:26:00,3.39,17850.0,United Kingdom
"""
SEARCH = "[search.learning_rate]\nlow = 1e-4\nhigh = 1e-2\nlog = true\n"


@pytest.fixture
def arguments(tiny_bundle: Path, tiny_shop: Shop, tmp_path: Path) -> dict[str, Path]:
    """Inputs that every command accepts, by the name that the commands have for them."""
    photos = pl.read_parquet(tiny_shop.photos)
    is_first = pl.int_range(pl.len()) < 1
    unlabelled = photos.filter(split="train").with_columns(
        pl.when(~is_first).then(pl.col(name)).alias(name) for name in ("item_id", "category")
    )
    pl.concat([photos, unlabelled]).unique("image", keep="last").write_parquet(
        tmp_path / "photos.parquet"
    )
    # The repeated row is what `check` has to write.
    items = pl.read_parquet(tiny_shop.items)
    pl.concat([items, items.head(1)]).write_parquet(tmp_path / "items.parquet")
    photos.select("image", "item_id").head(1).write_csv(tmp_path / "labelled.csv")
    (tmp_path / "texts.txt").write_text("nordic lamp\n")
    (tmp_path / "online-retail.csv").write_text(PURCHASES)
    text = (tiny_shop.folder / "tiny.toml").read_text()
    text = text.replace('"events.parquet"', f'"{tiny_shop.events}"')
    text = text.replace('"images"', f'"{tiny_shop.images}"')
    (tmp_path / "shop.toml").write_text(text + SEARCH)
    return {
        "bundle": tiny_bundle,
        "config": tmp_path / "shop.toml",
        "images": tiny_shop.images,
        "items": tmp_path / "items.parquet",
        "labelled": tmp_path / "labelled.csv",
        "photo": tiny_shop.images / str(photos["image"][0]),
        "photos": tiny_shop.unknown,
        "purchases": tmp_path / "online-retail.csv",
        "texts": tmp_path / "texts.txt",
    }


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("folder", ["a file", "/proc/missing"])
def test_a_folder_that_cannot_be_made_is_refused_by_every_command_that_writes(
    folder: str, command: str, arguments: dict[str, Path], tmp_path: Path, refusal: Say
) -> None:
    (tmp_path / "a file").write_text("not a folder")
    out = tmp_path / folder / "out"
    words = [word.format(**arguments, out=out) for word in shlex.split(command)]

    message = refusal(*words)

    assert str(out.parent) in message
    assert "cannot be written" in message or "must be a folder that this user can write" in message
    assert "\n" not in message
