"""What a bundle is trained again by: its own settings, its events and later ones."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from recsys.bundle import Bundle
from recsys.config import SplitConfig, TrainConfig
from recsys.data.timestamps import from_us
from recsys.errors import ConfigError, DataError
from recsys.renewal import add_events, read_behaviour, read_settings, start_encoder
from recsys.training.inputs import Behaviour


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle(tiny_bundle)


def of_split(config: TrainConfig, **changes: object) -> TrainConfig:
    split = SplitConfig(**{**config.split.model_dump(), **changes})  # type: ignore[arg-type]
    return config.model_copy(update={"split": split})


def split_of(bundle: Bundle) -> int:
    assert isinstance(bundle.split_us, int)
    return bundle.split_us


def behaviour(bundle: Bundle, config: TrainConfig) -> Behaviour:
    return read_behaviour(bundle, bundle.events, config)


def test_the_settings_are_those_of_training_without_the_moment_of_the_split(
    bundle: Bundle, tiny_config: TrainConfig
) -> None:
    bundle.settings = {
        **bundle.settings,
        "split": {**bundle.settings["split"], "at": "2025-12-01T00:00:00Z"},
    }
    found = read_settings(bundle)
    for name in ("seed", "split", "users", "ranker"):
        assert getattr(found, name) == getattr(tiny_config, name)


def test_a_bundle_without_settings_that_are_known_needs_a_configuration(bundle: Bundle) -> None:
    bundle.settings = {**bundle.settings, "users": {"wings": 2}}
    with pytest.raises(ConfigError, match=r"settings that this release knows, got 1 that it does"):
        read_settings(bundle)
    bundle.settings = {}
    with pytest.raises(ConfigError, match=r"got none, as it is of an earlier release; pass the"):
        read_settings(bundle)


def test_late_events_are_added_beside_later_ones_and_repeated_ones_are_not(bundle: Bundle) -> None:
    last = bundle.events.sort("timestamp").tail(1)
    new = last.with_columns(pl.col("timestamp") + timedelta(microseconds=1))
    late = last.with_columns(pl.col("timestamp") - timedelta(days=50))
    found = add_events(bundle, pl.concat([late, last, new]))
    assert (found.n_added, found.n_repeated, found.n_unknown) == (2, 1, 0)
    assert found.table.equals(pl.concat([bundle.events, late, new]))
    with pytest.raises(DataError, match=r"1 are in the bundle, 1 are earlier"):
        add_events(bundle, pl.concat([late, last]))


def test_the_split_is_never_before_that_of_the_bundle(
    bundle: Bundle, tiny_config: TrainConfig
) -> None:
    early = from_us(split_of(bundle)) - timedelta(days=20)
    found = behaviour(bundle, of_split(tiny_config, at=early))
    assert found.cuts_us[-1] == split_of(bundle)
    late = from_us(split_of(bundle)) + timedelta(days=2)
    assert from_us(behaviour(bundle, of_split(tiny_config, at=late)).cuts_us[-1]) == late


def test_a_split_of_each_user_is_refused(bundle: Bundle, tiny_config: TrainConfig) -> None:
    for protocol in ("user_time", "user_fold"):
        with pytest.raises(DataError, match=r'train again with protocol = "time" in \[split\]'):
            behaviour(bundle, of_split(tiny_config, protocol=protocol))
    bundle.split_us = behaviour(bundle, tiny_config).interactions.timestamps_us
    with pytest.raises(DataError, match="each user has a split of their own"):
        behaviour(bundle, tiny_config)


def test_an_encoder_that_knows_events_after_the_first_cut_is_no_start(
    bundle: Bundle, tiny_config: TrainConfig
) -> None:
    split, found = split_of(bundle), behaviour(bundle, tiny_config)
    assert start_encoder(bundle, found, tiny_config) is None
    for first, honest in ((split - 1, False), (split, True)):
        later = replace(found, cuts_us=(first, split + 5))
        assert (start_encoder(bundle, later, tiny_config) is bundle.held_out.encoder) is honest
    kinds = replace(later.interactions, kind_names=[*found.interactions.kind_names, "wish"])
    assert start_encoder(bundle, replace(later, interactions=kinds), tiny_config) is None
    users = tiny_config.users.model_copy(update={"depth": 0})
    other = tiny_config.model_copy(update={"users": users})
    assert start_encoder(bundle, later, other) is None
