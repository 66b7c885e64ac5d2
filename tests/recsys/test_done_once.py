"""A run decodes each picture once for its tower, and computes what its stages share once."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from recsys.catalogue.store import Catalogue
from recsys.config import TrainConfig
from recsys.data.tables import Tables
from recsys.pipeline import Run, train
from recsys.training.labels import title_groups
from recsys.training.pairs import item_pairs
from tests.counting import count_calls, count_decodes
from tests.recsys.training.mug_shop import IMAGES, PHOTOS, draw_pictures, mug_shop

EXPORTED = datetime(2025, 6, 1, tzinfo=UTC)
CHECK, TOWER = 1, 1  # decodings of a picture, for each of the two
CONFIG = TrainConfig.model_validate(
    {
        "name": "mugs",
        "device": "cpu",
        "data": {"target_kinds": ["buy"]},
        "split": {"horizon": "1w", "n_cuts": 2},
        "vision": {
            "backbone": "test_resnet",
            "pretrained": False,
            "size": 32,
            "fit": "crop",
            "train_size": 40,
            "dim": 8,
            "epochs": 1,
            "batch_size": 4,
        },
        "text": {"hidden": 16, "vocab_size": 300, "epochs": 1, "batch_size": 4},
        "alignment": {"epochs": 1, "batch_size": 4},
        "fusion": {"dim": 8, "hidden": 8, "epochs": 1},
        "identification": {"words": "off"},  # reading them decodes a photo once more
        "users": {"width": 8, "heads": 1, "depth": 1, "epochs": 1},
        "ranker": {"hidden": 4, "n_candidates": 6, "epochs": 1},
    }
)


class Counted(NamedTuple):
    """A run, and what was counted while it went on."""

    run: Run
    decodes: dict[str, int]  # by name of the file
    calls: dict[str, int]  # by name of the function
    left: list[Path]  # files beside the folders of the stages


def events() -> pl.DataFrame:
    """Return what four users viewed and bought over 60 days."""
    start = datetime(2025, 1, 1, tzinfo=UTC)
    rows = [
        {
            "user_id": f"u{n % 4}",
            "item_id": str((n * n + n // 4) % len(IMAGES)),
            "kind": ("view", "buy")[n % 2],
            "timestamp": start + timedelta(hours=6 * n),
        }
        for n in range(240)
    ]
    return pl.DataFrame(rows)


def counted(images: Path, out: Path) -> Counted:
    """Return a run on the shop of mugs, and what was counted."""
    shop = mug_shop(images)
    with pytest.MonkeyPatch.context() as patch:
        decodes = count_decodes(patch)
        calls = [count_calls(patch, function) for function in (item_pairs, title_groups)]
        catalogues: list[str] = []
        build = Catalogue.__init__

        def built(self: Catalogue, *arguments: Any, **options: Any) -> None:
            catalogues.append("Catalogue")
            build(self, *arguments, **options)

        patch.setattr(Catalogue, "__init__", built)
        tables = Tables(shop.items, events(), shop.photos, images, as_of=EXPORTED)
        run = train(CONFIG, out, tables=tables)
    name_of = {path.read_bytes(): path.name for path in images.iterdir()}
    return Counted(
        run,
        decodes={name_of[content]: count for content, count in decodes.items()},
        calls={one[0]: len(one) for one in [*calls, catalogues] if one},
        left=[path for path in (out / ".stages").iterdir() if not path.is_dir()],
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of the pictures, and that of the bundles."""
    folder = tmp_path_factory.mktemp("once")
    (folder / "images").mkdir()
    draw_pictures(folder / "images")
    return folder / "images", folder / "out"


@pytest.fixture(scope="module")
def first(folders: tuple[Path, Path]) -> Counted:
    """The first run, which skips nothing."""
    return counted(*folders)


def test_each_picture_is_decoded_once_to_check_it_and_once_for_the_tower(first: Counted) -> None:
    names = [stage.name for stage in first.run.stages if not stage.skipped]
    assert {"vision", "alignment", "embeddings", "photos"} <= {*names}
    unread = {f"p{n}.png" for n, (_, split) in enumerate(PHOTOS) if split == "test"}
    assert unread == {"p3.png"}
    pictures = {*filter(None, IMAGES), *(f"p{n}.png" for n in range(len(PHOTOS)))}
    assert first.decodes == {name: CHECK if name in unread else CHECK + TOWER for name in pictures}
    assert first.left == []


def test_pairs_and_title_groups_are_computed_once_for_all_fusions(first: Counted) -> None:
    fusions = [stage.name for stage in first.run.stages if stage.name.startswith("items")]
    assert len(fusions) == 5  # that of the bundle, two for the calibration and two ablations
    assert first.calls["item_pairs"] == first.calls["title_groups"] == 1


def test_a_catalogue_is_built_once_for_each_ranker(first: Counted) -> None:
    rankers = [stage.name for stage in first.run.stages if stage.name.startswith("ranker")]
    assert first.calls["Catalogue"] == len(rankers) == 3  # of the bundle and of two ablations


def test_a_run_that_skips_every_stage_decodes_pictures_to_check_them_alone(
    first: Counted, folders: tuple[Path, Path]
) -> None:
    again = counted(*folders)
    assert all(stage.skipped for stage in again.run.stages)
    assert again.run.bundle == first.run.bundle
    assert again.decodes == dict.fromkeys(first.decodes, CHECK)
    assert "Catalogue" not in again.calls


def test_a_run_after_the_tower_was_trained_decodes_each_picture_once_more(
    first: Counted, folders: tuple[Path, Path]
) -> None:
    skipped = ("vision", "text")
    for stage in first.run.stages:
        if stage.name not in skipped:
            (stage.folder / "done.json").unlink()
    again = counted(*folders)
    assert [stage.name for stage in again.run.stages if stage.skipped] == [*skipped]
    assert again.run.bundle == first.run.bundle
    assert max(again.decodes.values()) == CHECK + TOWER
    assert again.decodes["p3.png"] == CHECK
