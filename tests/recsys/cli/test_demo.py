from datetime import timedelta
from pathlib import Path

import polars as pl

from recsys.cli.demo import END, _regular
from recsys.config import load_config
from recsys.data.splits import cut_times
from recsys.data.synthetic import Shop

DEMO = Path(__file__).parents[3] / "recsys/cli/demo.toml"


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
