from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import vision.errors
from recsys.bundle import Bundle
from recsys.config import TrainConfig, load_config
from recsys.data.synthetic import Shop
from recsys.data.tables import Tables
from recsys.data.timestamps import from_us, to_us
from recsys.errors import ConfigError, DataError, MissingPartError, WeightsError
from recsys.pipeline import TUNED, Run, load_tables, train
from recsys.recommender import Recommender
from recsys.training.tuning import with_values

STAGES = [
    *("vision", "text", "heads", "embeddings", "statistics", "items", "users", "ranker"),
    *("photos", "items-held-out-1", "items-held-out-2", "words"),
    *("items-image", "users-image", "ranker-image"),
    *("items-text", "users-text", "ranker-text"),
]


def test_the_whole_chain_leaves_a_complete_bundle_and_both_ablations(tiny_run: Run) -> None:
    bundle = Bundle(tiny_run.bundle)
    assert bundle.parts == {"vision", "text", "ranking", "identification"}
    assert tiny_run.left_out == bundle.left_out == ()
    assert set(tiny_run.ablations) == {"text-only", "image-only"}
    assert [stage.name for stage in tiny_run.stages] == STAGES
    assert bundle.identification.words is None
    assert str(bundle.identification.why_no_words).endswith("photos of val show letters")
    lengths = np.linalg.norm(bundle.item_embeddings, axis=1)
    np.testing.assert_allclose(lengths, np.ones(len(bundle.items)), rtol=1e-5)


def test_evaluation_knows_the_events_before_the_split_and_the_statistics_all_of_them(
    tiny_run: Run, tiny_shop: Shop
) -> None:
    bundle = Bundle(tiny_run.bundle)
    assert bundle.split_us == round(tiny_shop.split.timestamp() * 1e6)
    assert bundle.as_of_us == bundle.interactions.timestamps_us.max() + 1


def test_the_same_configuration_skips_every_stage_and_gives_the_same_version(
    tiny_run: Run, tiny_config: TrainConfig
) -> None:
    again = train(tiny_config, tiny_run.bundle.parent)
    assert all(stage.skipped for stage in again.stages)
    assert again.bundle == tiny_run.bundle


NO_TABLES = {"items": None, "events": None, "photos": None, "images_root": None}


def without_tables(config: TrainConfig) -> TrainConfig:
    return config.model_copy(update={"data": config.data.model_copy(update=NO_TABLES)})


def test_frames_with_the_rows_and_time_of_the_files_skip_every_stage_and_give_the_same_version(
    tiny_run: Run, tiny_config: TrainConfig, tiny_shop: Shop
) -> None:
    as_of_us = Bundle(tiny_run.bundle).items_as_of_us
    assert as_of_us == tiny_shop.items.stat().st_mtime_ns // 1000
    tables = Tables(
        items=pl.read_parquet(tiny_shop.items),
        events=pl.read_parquet(tiny_shop.events).to_pandas(),
        photos=pl.read_parquet(tiny_shop.photos),
        images_root=tiny_shop.images,
        as_of=from_us(as_of_us),
    )
    again = train(without_tables(tiny_config), tiny_run.bundle.parent, tables=tables)
    assert all(stage.skipped for stage in again.stages)
    assert again.bundle == tiny_run.bundle


def test_tables_are_either_passed_or_configured(tiny_config: TrainConfig, tiny_shop: Shop) -> None:
    with pytest.raises(ConfigError, match=r"got both; remove items, events, photos, images_root"):
        load_tables(tiny_config, Tables(tiny_shop.items))
    dated = tiny_config.data.model_copy(update=NO_TABLES | {"as_of": datetime.now(UTC)})
    with pytest.raises(ConfigError, match=r"got both; remove as_of from \[data\]"):
        load_tables(tiny_config.model_copy(update={"data": dated}), Tables(tiny_shop.items))
    with pytest.raises(ConfigError, match=r"data\.items must name the items table, got none"):
        load_tables(without_tables(tiny_config))


def test_a_change_of_the_ranker_trains_the_ranker_alone(
    tiny_run: Run, tiny_config: TrainConfig
) -> None:
    trees = tiny_config.ranker.trees.model_copy(update={"leaves": 4})
    ranker = tiny_config.ranker.model_copy(update={"trees": trees})
    evaluation = tiny_config.evaluation.model_copy(update={"ablations": False})
    changed = tiny_config.model_copy(update={"ranker": ranker, "evaluation": evaluation})
    run = train(changed, tiny_run.bundle.parent)
    assert [stage.name for stage in run.stages if not stage.skipped] == ["ranker"]
    assert run.bundle != tiny_run.bundle


def test_a_new_export_of_the_same_rows_skips_every_stage_and_dates_the_bundle(
    tiny_run: Run, tiny_config: TrainConfig
) -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    run = train(reduced(tiny_config, as_of=moment), tiny_run.bundle.parent)
    assert all(stage.skipped for stage in run.stages)
    assert run.bundle != tiny_run.bundle
    assert Bundle(run.bundle).items_as_of_us == to_us("moment", moment)


def reduced(config: TrainConfig, **data: object) -> TrainConfig:
    evaluation = config.evaluation.model_copy(update={"ablations": False})
    return config.model_copy(
        update={"data": config.data.model_copy(update=data), "evaluation": evaluation}
    )


@pytest.mark.slow
def test_other_prices_and_later_events_train_no_tower_again(
    tiny_run: Run, tiny_config: TrainConfig, tiny_shop: Shop, tmp_path: Path
) -> None:
    items = pl.read_parquet(tiny_shop.items).with_columns(pl.col("price") * 1.1)
    events = pl.read_parquet(tiny_shop.events)
    later = events.tail(1).with_columns(pl.col("timestamp") + pl.duration(seconds=1))
    changed = {"items": items, "events": pl.concat([events, later])}
    for name, table in changed.items():
        table.write_parquet(tmp_path / f"{name}.parquet")
    paths = {name: str(tmp_path / f"{name}.parquet") for name in changed}
    run = train(
        reduced(tiny_config, images_root=str(tiny_shop.images), **paths), tiny_run.bundle.parent
    )
    trained = [stage.name for stage in run.stages if not stage.skipped]
    assert trained[:4] == ["statistics", "items", "users", "ranker"]


@pytest.mark.slow
def test_without_events_it_still_searches_and_says_what_was_left_out(
    tiny_run: Run, tiny_config: TrainConfig
) -> None:
    run = train(reduced(tiny_config, events=None, target_kinds=()), tiny_run.bundle.parent)
    assert any(reason.startswith("ranking: no events") for reason in run.left_out)
    recommender = Recommender(Bundle(run.bundle))
    assert len(recommender.search("lamp", k=3)) == 3
    with pytest.raises(MissingPartError, match=r"no 'ranking' part.*no events table"):
        recommender.recommend("u", k=3)


@pytest.mark.slow
def test_alignment_changes_both_towers_of_the_bundle(
    tiny_run: Run, tiny_config: TrainConfig
) -> None:
    config = reduced(tiny_config, events=None, target_kinds=())
    alignment = config.alignment.model_copy(update={"epochs": 1, "batch_size": 32})
    apart = train(config, tiny_run.bundle.parent)
    run = train(config.model_copy(update={"alignment": alignment}), tiny_run.bundle.parent)
    names = [stage.name for stage in run.stages]
    assert names.index("alignment") == names.index("heads") - 1
    skipped = [stage.name for stage in run.stages if stage.skipped]
    assert skipped == ["vision", "text", "words"]
    before, after = (Bundle(each.bundle).embedder() for each in (apart, run))
    for one, other in ((before.vision, after.vision), (before.text, after.text)):
        assert one is not None
        assert other is not None
        pairs = zip(one.parameters(), other.parameters(), strict=True)
        assert any(not torch.equal(here, there) for here, there in pairs)


@pytest.mark.slow
def test_a_search_finds_better_settings_and_a_file_that_trains_with_them_again(
    tiny_run: Run, tiny_config: TrainConfig
) -> None:
    """Two candidates a query are too few for a tree to split, and easily beaten."""
    out = tiny_run.bundle.parent
    few = {
        "ranker.kind": "trees",
        "ranker.n_candidates": 2,
        "ranker.trees.min_candidates": 200,
    }
    poor = with_values(reduced(tiny_config), few)
    begun: list[str] = []
    run = train(poor, out, tune=4, announce=begun.append)
    assert [one for one in begun if "trial" in one] == [f"trial {n} of 4" for n in range(1, 5)]
    assert run.tuning is not None
    assert run.tuning.changed["ranker.n_candidates"][0] == 2
    assert run.tuning.gained > run.tuning.error > 0
    assert run.tuning.sentence in " ".join((out / TUNED).read_text().replace("# ", "").split())
    tuned = load_config(out / TUNED)
    assert tuned == run.tuning.config != poor
    again = train(tuned, out)
    assert again.bundle == run.bundle
    assert all(stage.skipped for stage in again.stages)


def test_a_search_without_events_is_refused_before_anything_is_trained(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"got none \(no events table was given\); add events, or"):
        train(reduced(tiny_config, events=None, target_kinds=()), tmp_path, tune=2)
    assert not list(tmp_path.glob("*/*"))


def test_without_pictures_and_photos_words_and_ranking_remain(
    tiny_run: Run, tiny_config: TrainConfig, tiny_shop: Shop, tmp_path: Path
) -> None:
    items = pl.read_parquet(tiny_shop.items).with_columns(image=pl.lit(None, dtype=pl.String))
    items.write_parquet(tmp_path / "items.parquet")
    bare = reduced(
        tiny_config, items=str(tmp_path / "items.parquet"), photos=None, images_root=None
    )
    run = train(bare, tmp_path / "out")
    assert Bundle(run.bundle).parts == {"text", "ranking"}
    assert [reason.split(":")[0] for reason in run.left_out] == ["vision", "identification"]
    with pytest.raises(MissingPartError, match="no vision tower"):
        Recommender(Bundle(run.bundle)).search(image=b"picture", k=1)


def test_items_with_neither_titles_nor_pictures_are_refused(
    tiny_config: TrainConfig, tiny_shop: Shop, tmp_path: Path
) -> None:
    nothing = pl.lit(None, dtype=pl.String)
    items = pl.read_parquet(tiny_shop.items).with_columns(
        image=nothing, title=nothing, description=nothing
    )
    items.write_parquet(tmp_path / "items.parquet")
    bare = reduced(
        tiny_config, items=str(tmp_path / "items.parquet"), photos=None, images_root=None
    )
    with pytest.raises(DataError, match="must have titles or pictures"):
        train(bare, tmp_path / "out")
    assert not list((tmp_path / "out").glob("[!.]*"))


def test_a_split_before_which_too_little_happened_is_refused(
    tiny_run: Run, tiny_config: TrainConfig
) -> None:
    early = tiny_config.split.model_copy(update={"at": datetime(2025, 5, 20, tzinfo=UTC)})
    with pytest.raises(DataError, match="events must begin before the first of 2 cuts"):
        train(tiny_config.model_copy(update={"split": early}), tiny_run.bundle.parent)


def test_strict_training_stops_at_a_bad_row(
    tiny_config: TrainConfig, tiny_shop: Shop, tmp_path: Path
) -> None:
    events = pl.read_parquet(tiny_shop.events)
    stray = events.head(1).with_columns(item_id=pl.lit("no-such-item"))
    pl.concat([events, stray]).write_parquet(tmp_path / "events.parquet")
    bad = reduced(tiny_config, events=str(tmp_path / "events.parquet"))
    with pytest.raises(DataError, match="every row must be valid"):
        train(bad, tmp_path / "out", strict=True)


def test_weights_that_are_not_there_are_named_with_what_to_do(
    tiny_run: Run, tiny_config: TrainConfig
) -> None:
    settings = tiny_config.vision.model_copy(update={"pretrained": "./nowhere"})
    wrong = tiny_config.model_copy(update={"vision": settings})
    with pytest.raises(
        WeightsError, match=r"a \.safetensors file, a folder .* nor a hub id"
    ) as raised:
        train(wrong, tiny_run.bundle.parent)
    assert isinstance(raised.value.__cause__, vision.errors.WeightsError)


@pytest.mark.slow
def test_a_teacher_is_read_once_a_run_and_not_when_its_stages_are_skipped(
    tiny_run: Run, tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = Bundle(tiny_run.bundle).items["item_id"]
    vectors = np.random.default_rng(0).normal(size=(len(items), 4)).astype(np.float32)
    for name in ("here", "there"):
        table = pl.DataFrame({"id": items, "embedding": vectors.tolist()})
        table.write_parquet(tmp_path / f"{name}.parquet")
    reads: list[Path] = []
    scan = pl.scan_parquet

    def counted(files: Path | list[Path], **options: Any) -> pl.LazyFrame:
        reads.extend(files if isinstance(files, list) else [files])
        return scan(files, **options)

    monkeypatch.setattr(pl, "scan_parquet", counted)

    def taught(name: str) -> Run:
        teacher = str(tmp_path / f"{name}.parquet")
        fusion = tiny_config.fusion.model_copy(update={"teacher": teacher})
        return train(tiny_config.model_copy(update={"fusion": fusion}), tiny_run.bundle.parent)

    first, moved = taught("here"), taught("there")
    assert reads.count(tmp_path / "here.parquet") == 1
    assert reads.count(tmp_path / "there.parquet") == 0
    assert all(stage.skipped for stage in moved.stages)
    assert moved.bundle == first.bundle != tiny_run.bundle
