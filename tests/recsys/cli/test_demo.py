import re
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from recsys.bundle import Bundle
from recsys.cli.app import app
from recsys.cli.demo import END, _regular
from recsys.config import load_config
from recsys.data.splits import cut_times
from recsys.data.synthetic import Shop

DEMO = Path(__file__).parents[3] / "recsys/cli/demo.toml"
SMALL = """
[data]
items = "items.parquet"
events = "events.parquet"
photos = "photos.parquet"
images_root = "images"
target_kinds = ["cart", "purchase"]
[split]
horizon = "1mo"
n_cuts = 2
[vision]
backbone = "test_resnet"
pretrained = false
size = 32
dim = 32
epochs = 2
[text]
hidden = 32
epochs = 2
[fusion]
dim = 32
hidden = 64
epochs = 3
[users]
width = 16
heads = 2
depth = 1
epochs = 1
[ranker]
kind = "trees"  # so few users may get popularity, which follows nobody
n_candidates = 50
trees = { trees = 20, min_candidates = 5 }
"""


def shop(folder: Path, **counts: int) -> Shop:
    """Return a shop whose users have the given numbers of events."""
    users = [user for user, count in counts.items() for _ in range(count)]
    folder.mkdir(exist_ok=True)
    made = Shop(folder, END - timedelta(days=31), END, 0, len(users), 0, 0)
    pl.DataFrame({"user_id": users}).write_parquet(made.events)
    return made


def test_the_demo_asks_for_the_user_with_the_median_of_ten_or_more_events(tmp_path: Path) -> None:
    assert _regular(shop(tmp_path, a=9, b=40, c=10, d=12, e=2)) == "d"
    assert _regular(shop(tmp_path, only=10, rare=9)) == "only"


def test_users_with_equally_many_events_are_sorted_by_id(tmp_path: Path) -> None:
    assert _regular(shop(tmp_path, z=10, y=10, x=10)) == "y"


def test_the_configuration_of_the_demo_names_the_tables_of_the_generated_shop(
    tmp_path: Path,
) -> None:
    made = shop(tmp_path)
    path = tmp_path / "demo.toml"
    path.write_text(DEMO.read_text())
    data = load_config(path).data
    wanted = [str(one) for one in (made.items, made.events, made.photos, made.images)]
    assert [data.items, data.events, data.photos, data.images_root] == wanted


def test_the_demo_holds_out_the_last_month_of_the_shop() -> None:
    split_us = cut_times(round(END.timestamp() * 1e6), load_config(DEMO).split.horizon, 1)[0]
    assert split_us == round((END - timedelta(days=31)).timestamp() * 1e6)


@pytest.mark.slow
def test_the_demo_ends_with_a_bundle_a_report_and_answers_that_follow_the_shopper(
    tmp_path: Path,
) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    out = tmp_path / "demo"
    scale = ["--items", "100", "--users", "150", "--months", "8"]

    result = CliRunner().invoke(
        app,
        ["demo", "--out", str(out), "--config", str(tmp_path / "small.toml"), *scale],
        catch_exceptions=False,
    )

    assert result.exit_code == 0
    said = result.stdout
    bundle = Bundle(Path(words_after("bundle", said)))
    assert bundle.path.parent == out
    assert bundle.parts == {"vision", "text", "ranking", "identification"}
    assert Path(words_after("report", said)) == out / "report.html"
    assert "Generated shop" in (out / "report.html").read_text()
    for system in ("vitrine", "popularity", "text-only", "image-only"):
        assert first_cells("scope all", said).count(system) == 1
    user, bought = find(r"and after (\S+) bought (\S+)", said).groups()
    assert bought == first_cells(f"recommended to {user}", said)[-1]
    assert "the answer changed at once" in said
    assert first_cells("photos", said)[-1].startswith("unknown/")
    assert first_cells("added", said)[0] == "new-product"


def find(pattern: str, said: str) -> re.Match[str]:
    found = re.search(pattern, said, re.MULTILINE | re.DOTALL)
    assert found, f"nothing like {pattern!r} in {said}"
    return found


def words_after(name: str, said: str) -> str:
    """Return the rest of the line that begins with a name."""
    return find(rf"^  {name} +([^\n]*)$", said)[1]


def first_cells(title: str, said: str) -> list[str]:
    """Return the first column of the table with this title, without continued lines."""
    table = find(rf"^{re.escape(title)}[^\n]*\n┏.*?^└", said)[0]
    cells = [line.split("│")[1].strip() for line in table.splitlines() if line.startswith("│")]
    return [cell for cell in cells if cell]
