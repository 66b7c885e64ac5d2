"""Every Python and shell block of the documentation runs, on a small shop.

The blocks of a page share a folder, and its Python blocks share their names. ``recsys serve``
starts a service on a free port, which later blocks of the page reach.
"""

import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from recsys.cli.app import app
from recsys.data.synthetic import Shop
from recsys.pipeline import Run
from recsys.training.stages import STAGES
from tests.documentation import PAGES, ROOT, RUNNABLE, Block, executed_blocks, read_blocks

PORT = "50051"  # port in the pages, which the tests replace by a free one
START_S = 120

# Names that the text around a block introduces.
GIVEN: dict[str, dict[str, Any]] = {
    "vision.md": {
        "images": [f"photo-{number:05d}.jpg" for number in range(1, 7)],
        "labels": np.array([0, 1, 2, 0, 1, 2]),
        "photos": [Path("photo.jpg")],
    }
}

with_blocks = [page for page in PAGES if executed_blocks([page])]


@pytest.fixture
def shop_folder(
    tiny_shop: Shop, tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with what the pages assume: tables, a list, pictures, runs/shop, photos."""
    for table in ("items", "events", "photos"):
        shutil.copy(tiny_shop.folder / f"{table}.parquet", tmp_path)
    os.symlink(tiny_shop.images, tmp_path / "images")
    config = (tiny_shop.folder / "tiny.toml").read_text()
    (tmp_path / "shop.toml").write_text(config)
    without_tables = [line for line in config.splitlines() if ".parquet" not in line]
    (tmp_path / "model.toml").write_text("\n".join(without_tables).replace("images_root", "# "))
    # Other tests train into the same folder, so the latest bundle may be another one.
    runs = tmp_path / "runs/shop"
    shutil.copytree(tiny_run.bundle.parent / STAGES, runs / STAGES, symlinks=True)
    shutil.copytree(tiny_run.bundle, runs / tiny_run.bundle.name)
    (runs / "latest").symlink_to(tiny_run.bundle.name)
    for name in ("new", "items-2026"):
        shutil.copy(tmp_path / "items.parquet", tmp_path / f"{name}.parquet")
    events = pl.read_parquet(tmp_path / "events.parquet")
    best = events["item_id"].value_counts(sort=True).head(20).select("item_id", score="count")
    events.select("user_id").unique().join(best, how="cross").write_csv(
        tmp_path / "bestsellers.csv"
    )
    events.select("user_id", "item_id").unique().head(20).write_parquet(tmp_path / "pairs.parquet")
    for name, days in (("today", 40), ("monday", 40), ("tuesday", 80)):
        later = events.tail(800).with_columns(pl.col("timestamp") + timedelta(days=days))
        later.write_parquet(tmp_path / f"{name}.parquet")
    rules = next(one for one in read_blocks(ROOT / "docs/rules.md") if one.language == "toml")
    (tmp_path / "rules.toml").write_text(rules.text)
    photos = pl.read_parquet(tmp_path / "photos.parquet")["image"]
    for folder in ("inbox", "photos"):
        (tmp_path / folder).mkdir()
        for name in photos[:6]:
            shutil.copy(tiny_shop.images / name, tmp_path / folder)
    shutil.copy(tiny_shop.images / photos[0], tmp_path / "photo.jpg")
    labelled = pl.read_parquet(tmp_path / "photos.parquet").join(
        pl.read_parquet(tmp_path / "items.parquet").select("item_id", kind="category"), on="item_id"
    )
    for number, (image, kind) in enumerate(labelled.select("image", "kind").rows()):
        folder = tmp_path.joinpath("kinds", *kind)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(tiny_shop.images / image, folder / f"{number}.jpg")
    alone = '[data]\nphotos = "tables/kinds/photos.parquet"'
    (tmp_path / "kinds.toml").write_text(
        (tmp_path / "model.toml").read_text().replace("[data]", alone)
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", with_blocks, ids=lambda page: page.name)
@pytest.mark.slow
def test_the_blocks_of_a_page_run_in_order(page: Path, shop_folder: Path) -> None:
    names: dict[str, Any] = {"__name__": page.stem, **GIVEN.get(page.name, {})}
    with ExitStack() as services:
        port = PORT
        for block in executed_blocks([page]):
            text = block.text.replace(f"127.0.0.1:{PORT}", f"127.0.0.1:{port}")
            if block.language == "python":
                exec(compile(text, block.where, "exec"), names)
                continue
            for words in command_lines(block._replace(text=text)):
                if words[:2] == ["recsys", "serve"]:
                    port = services.enter_context(serving(words))
                else:
                    run(words, block.where)


@pytest.mark.parametrize("page", with_blocks, ids=lambda page: page.name)
def test_a_block_that_is_not_run_has_a_reason(page: Path) -> None:
    left = [block for block in read_blocks(page) if block.language in RUNNABLE and block.reason]

    assert all(len(block.reason.split()) >= 3 for block in left)


def command_lines(block: Block) -> Iterator[list[str]]:
    """Yield the words of every command, without comments; continued lines are joined."""
    for line in block.text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


def run(words: list[str], where: str) -> None:
    """Run a ``recsys`` command in this process."""
    assert words[0] == "recsys", f"{where}: no way to run {words[0]!r} here"
    result = CliRunner().invoke(app, words[1:])

    assert result.exit_code == 0, (
        f"{where}: {shlex.join(words)}: {result.output}{result.exception!r}"
    )


@contextmanager
def serving(words: list[str]) -> Iterator[str]:
    """Run ``recsys serve`` on a free port, yield the port, and stop the service."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "recsys.cli", *words[1:]]
    command[command.index(PORT)] = port
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RECSYS_STATE": str(Path.cwd() / "state")}
    log = Path("serve.log")
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, env=environment, stderr=stderr) as process,
    ):
        try:
            wait_until_ready(process, port)
            yield port
        finally:
            process.terminate()
            process.wait(timeout=START_S)
    assert process.returncode == 0, log.read_text()


def wait_until_ready(process: "subprocess.Popen[bytes]", port: str) -> None:
    """Return when a service answers on the port; fail as soon as its process has ended."""
    deadline = time.monotonic() + START_S
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        ready = grpc.channel_ready_future(channel)
        while not ready.done():
            assert process.poll() is None, Path("serve.log").read_text()
            assert time.monotonic() < deadline, f"no service on port {port} after {START_S} s"
            time.sleep(0.1)
