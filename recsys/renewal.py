"""Train the users and rankers of a bundle again, on its events and newer ones."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import polars as pl
from pydantic import ValidationError

from recsys.bundle import Bundle, RankingPart, ranking_settings, replace_ranking
from recsys.config import TrainConfig
from recsys.data.dataset import Dataset
from recsys.data.frames import Frame
from recsys.data.interactions import build_interactions
from recsys.data.loading import load_events
from recsys.data.quarantine import Quarantine
from recsys.data.tables import Source, Tables
from recsys.data.timestamps import from_us
from recsys.errors import ConfigError, DataError, InvalidArgumentError
from recsys.models.user_encoder import UserEncoder, build_user_encoder
from recsys.training.inputs import Behaviour, cut_events
from recsys.training.known import count_events
from recsys.training.rankers import fit_ranking
from recsys.training.stack import FusedItems, fit_user_encoders
from recsys.training.stages import STAGES, Runtime, Workspace
from vision.device import Device, resolve_device

_EVENT = ("user_id", "item_id", "kind", "timestamp")
_UNKNOWN_ITEM = ("item_id|known", "item_id|spelled")


class AddedEvents(NamedTuple):
    """The events of a bundle together with newer ones.

    Args:
        table: All of them, table of ``EventSchema``.
        n_added: Number of events that the bundle lacked.
        n_repeated: Number of rows that the bundle had already; they count once.
        n_unknown: Number of rows of items that the bundle lacks; they are left out.
        quarantine: All rows that were left out, with the reasons.
    """

    table: pl.DataFrame
    n_added: int
    n_repeated: int
    n_unknown: int
    quarantine: Quarantine


def read_settings(bundle: Bundle) -> TrainConfig:
    """Return the settings that a bundle's rankers were trained by.

    A moment of the split is left out: it is past, and the test window moves on with the events.

    Raises:
        ConfigError: If the bundle has none, or this release does not know them.
        MissingPartError: If the bundle was trained without events.
    """
    bundle.require("ranking")
    other = "pass the configuration with config, or train again"
    if not bundle.settings:
        raise ConfigError(
            f"bundle {bundle.version} must hold the settings of its rankers, got none, as it is of "
            f"an earlier release; {other}"
        )
    split = {**bundle.settings["split"], "at": None}
    try:
        return TrainConfig.model_validate({**bundle.settings, "split": split})
    except ValidationError as error:
        raise ConfigError(
            f"bundle {bundle.version} must hold settings that this release knows, got "
            f"{error.error_count()} that it does not; {other}"
        ) from error


def add_events(bundle: Bundle, events: Source | Frame) -> AddedEvents:
    """Return a bundle's events with those of a table, which is validated as in training.

    Args:
        bundle: A bundle with its ranking part.
        events: Events table: a path, a glob, a list of them, or a DataFrame.

    Raises:
        DataError: If no event is later than those of the bundle, or the table cannot be read.
        InvalidArgumentError: If ``events`` is not a table.
        MissingPartError: If the bundle was trained without events.
    """
    known = bundle.events
    source = Tables(bundle.items, events).events
    if source is None:
        raise InvalidArgumentError("events must be files or a DataFrame, got None")
    loaded = load_events(source, bundle.items["item_id"], now=datetime.now(UTC))
    counts = loaded.report.counts()
    n_unknown = sum(counts.get(rule, 0) for rule in _UNKNOWN_ITEM)
    added = loaded.frame.join(known, on=_EVENT, how="anti").select(known.columns)
    n_repeated = len(loaded.frame) - len(added)
    last = known.select(pl.col("timestamp").max()).item()
    if not (added["timestamp"] > last).any():
        raise DataError(
            f"events must have some after those of the bundle, which end at {last}, got none: "
            f"{n_repeated:,} are in the bundle, {len(added):,} are earlier, and {n_unknown:,} are "
            "of items that the bundle lacks; pass later events, or train again with the new items"
        )
    table = pl.concat([known, added])
    return AddedEvents(table, len(added), n_repeated, n_unknown, Quarantine((loaded.report,)))


def read_behaviour(bundle: Bundle, events: pl.DataFrame, config: TrainConfig) -> Behaviour:
    """Return what the rankers of a new bundle learn from.

    The split is not before that of the bundle, whose held-out rankers know the events until then.

    Args:
        bundle: The bundle that has the items and relations.
        events: All events, table of ``EventSchema``.
        config: Settings of ``[split]`` and ``[users]``.

    Raises:
        DataError: If the bundle or the events are not split at one moment for all users, or the
            rankers have nothing to learn from before or between the cuts.
        TrainingError: If the user encoder has nothing to learn from before the first cut.
    """
    interactions = build_interactions(events, bundle.items["item_id"].to_list())
    parts = bundle.items, interactions, bundle.target_kinds
    cuts_us = cut_events(*parts, config)
    if not isinstance(cuts_us[-1], int) or not isinstance(bundle.split_us, int):
        raise DataError(
            "a refresh compares on the events from one moment on, but each user has a split of "
            'their own; train again with protocol = "time" in [split]'
        )
    if cuts_us[-1] < bundle.split_us:
        split = config.split.model_copy(update={"at": from_us(bundle.split_us)})
        cuts_us = cut_events(*parts, config.model_copy(update={"split": split}))
    tables = Dataset(bundle.items, events, None, None, Quarantine(()))
    return Behaviour(
        items=bundle.items,
        interactions=interactions,
        target_kinds=bundle.target_kinds,
        cuts_us=cuts_us,
        related=bundle.statistics.related,
        key=_hash(tables.fingerprint(), bundle.target_kinds, cuts_us),
    )


def renew(
    bundle: Bundle,
    events: pl.DataFrame,
    behaviour: Behaviour,
    config: TrainConfig,
    out: Path,
    *,
    progress: bool = False,
    announce: Callable[[str], None] = lambda stage: None,
) -> Path:
    """Seal a bundle under ``out`` with new users and rankers; ``latest`` stays as it is.

    Everything else is that of the old bundle, byte for byte.

    Args:
        bundle: The old bundle.
        events: All events, table of ``EventSchema``.
        behaviour: Result of :func:`read_behaviour`.
        config: Settings of ``[users]`` and ``[ranker]``, the seed and the device.
        out: Folder of the bundles and of the stages.
        progress: Whether to show progress bars.
        announce: Called with the name of each stage before it runs.
    """
    runtime = Runtime(
        workspace=Workspace(out / STAGES, announce=announce),
        device=cast(Device, resolve_device(config.device).type),
        seed=config.seed,
        progress=progress,
    )
    items = count_events(behaviour, runtime)
    embeddings = np.array(bundle.item_embeddings)
    fused = FusedItems(bundle.fusion, embeddings, _hash(bundle.version, behaviour.key, config.seed))
    encoders = fit_user_encoders(
        behaviour, fused, config.users, runtime, start=start_encoder(bundle, behaviour, config)
    )
    ranking = fit_ranking(behaviour, embeddings, encoders, items, config.ranker, runtime)
    part = RankingPart(
        events=events,
        ranker=ranking.served or ranking.held_out,
        held_out=ranking.held_out,
        statistics=items.at(-1),
        target_kinds=behaviour.target_kinds,
        split_us=behaviour.cuts_us[-1],
        choice=ranking.choice.to_json(),
        offers=bundle.offers,
        settings=ranking_settings(config),
    )
    announce("bundle")
    return replace_ranking(bundle.path, part, out)


def start_encoder(bundle: Bundle, behaviour: Behaviour, config: TrainConfig) -> UserEncoder | None:
    """Return the encoder of the old bundle to go on from; None to start from the beginning.

    It is the held-out one, if it learned before the first cut only and has the same sizes and
    kinds of events. Else the rankers would be trained on vectors that know their answers.
    """
    first, split = behaviour.cuts_us[0], bundle.split_us
    if not isinstance(first, int) or not isinstance(split, int) or split > first:
        return None
    kinds, encoder = behaviour.interactions.kind_names, bundle.held_out.encoder
    wanted = build_user_encoder(config.users, dim=encoder.dim, n_kinds=len(kinds)).spec
    same = encoder.spec == wanted and [*kinds] == [*bundle.interactions.kind_names]
    return encoder if same else None


def _hash(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
