import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recsys.bulk import EmbedOptions, FeatureOptions, build_features, embed_items
from recsys.bundle import Bundle

Shop = Callable[..., Path]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Ray cluster of two processes on this machine; a process reads one token for all."""
    ray = pytest.importorskip("ray")
    token = tmp_path_factory.mktemp("ray") / "token"  # Ray would write one to the home folder
    token.write_text(secrets.token_hex(32))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::FutureWarning:ray")
@pytest.mark.usefixtures("cluster")
@pytest.mark.slow
def test_a_cluster_writes_what_one_machine_writes(
    bundle: Bundle, shop: Shop, tmp_path: Path
) -> None:
    items = shop(image=["torn.jpg", None, "0.jpg", "1.jpg", "2.jpg"] * 2)
    reported: list[tuple[str, int, int]] = []
    here = embed_items(bundle, items, tmp_path / "here", EmbedOptions(rows_per_part=4))
    there = embed_items(
        bundle,
        items,
        tmp_path / "there",
        EmbedOptions(rows_per_part=4, engine="ray"),
        progress=lambda *one: reported.append(one),
    )
    assert len(reported) == 3
    assert reported[-1] == ("items", 10, 10)
    assert there.failures == here.failures == {"image|decodes": 2}
    assert [path.name for path in there.files] == [path.name for path in here.files]
    one, other = (pl.read_parquet(embedded.files) for embedded in (here, there))
    # A process of the cluster computes in one thread, and so adds up in another order.
    assert_frame_equal(other, one, rel_tol=0, abs_tol=1e-5)
    for path in (tmp_path / "here").glob("quarantine-*"):
        assert_frame_equal(pl.read_parquet(tmp_path / "there" / path.name), pl.read_parquet(path))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::FutureWarning:ray")
@pytest.mark.usefixtures("cluster")
@pytest.mark.slow
def test_a_cluster_builds_the_features_that_one_machine_builds(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    bundle, pairs = Bundle(tiny_bundle), tmp_path / "pairs.parquet"
    bundle.events.select("user_id", "item_id").head(40).write_parquet(pairs)
    found = [
        pl.read_parquet(build_features(bundle, pairs, tmp_path / options.engine, options).files)
        for options in (FeatureOptions(rows_per_part=15), FeatureOptions(engine="ray"))
    ]
    assert_frame_equal(found[1], found[0], rel_tol=0, abs_tol=1e-5)
