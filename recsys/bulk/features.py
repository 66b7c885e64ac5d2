"""Write what the rankers read of many pairs of a user and an item, part by part."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.bulk.parts import WHOLE, Parts, Shard
from recsys.bulk.runs import (
    Engine,
    InputTable,
    begin_run,
    check_run,
    finish_run,
    folder_of,
    make_missing,
)
from recsys.bulk.table import fingerprint
from recsys.bundle import Bundle
from recsys.bundle.contents import EVENTS
from recsys.catalogue.store import Catalogue
from recsys.data.arrays import Ints
from recsys.data.files import whole_file
from recsys.data.interactions import EMPTY_HISTORY, History, build_interactions
from recsys.data.loading import scan_table
from recsys.data.progress import Progress
from recsys.data.quarantine import describe_rule, validate
from recsys.data.tables import Source, find_files
from recsys.data.timestamps import from_us, to_us
from recsys.errors import InvalidArgumentError, LeakageError
from recsys.ranking.features import FEATURES, ranking_features
from recsys.ranking.item_table import build_item_table
from recsys.schema import EventSchema, PairSchema

ROWS_PER_PART = 65_536
CELLS_AT_ONCE = 400_000  # users times items whose scores are in memory together
_EVENT_COLUMNS = ("user_id", "item_id", "kind", "timestamp", "quantity")


@dataclass(frozen=True)
class FeatureOptions:
    """How the features of a table of pairs are built.

    Args:
        events: Events table that the histories are read from. None takes the bundle's events.
        as_of: Moment up to which the items are known: their popularity, neighbours and factors. It
            must not be before the bundle's split, where its rankers stop learning. None is the end
            of the bundle's events, with what learned from all of them.
        shard: Parts to make in this run.
        engine: ``local`` runs in this process. ``ray`` spreads the parts over the processes of a
            Ray cluster, all of which see the same files.
        device: Device of the item table and the user encoder.
        rows_per_part: Rows of the table in a part.

    Raises:
        InvalidArgumentError: If the engine is unknown, a part has no rows, or ``as_of`` has no time
            zone.
    """

    events: Source | None = None
    as_of: datetime | None = None
    shard: Shard = WHOLE
    engine: Engine = "local"
    device: str = "cpu"
    rows_per_part: int = ROWS_PER_PART

    def __post_init__(self) -> None:
        check_run(self.engine, self.rows_per_part)
        if self.as_of is not None:
            to_us("as_of", self.as_of)  # raises without a time zone


@dataclass(frozen=True)
class Featured:
    """The outcome of building features of a table, or of one shard of it.

    Args:
        n_rows: Number of rows of the table.
        n_pairs: Number of rows with features.
        failures: Number of rows that broke each rule, most first.
        files: Files with the features, in the order of the table.
    """

    n_rows: int
    n_pairs: int
    failures: Mapping[str, int]
    files: Sequence[Path]

    def lines(self) -> list[str]:
        """Return the failures as sentences."""
        return [
            describe_rule("pairs", rule, count, self.n_rows)
            for rule, count in self.failures.items()
        ]


def build_features(
    bundle: Bundle,
    pairs: Source,
    out: Path,
    options: FeatureOptions = FeatureOptions(),
    *,
    progress: Progress | None = None,
) -> Featured:
    """Write the ranking features of every valid pair, in the table's order.

    They are those that the rankers read when ``recommend`` is asked for the user at the pair's
    time: a history ends before that time, and items are known as of ``options.as_of``. The columns
    are user_id, item_id, timestamp and ``recsys.ranking.features.FEATURES``. Parts that were
    finished before an interruption are kept. Memory holds one part and the events of its users.

    Args:
        bundle: Bundle with a ranking part.
        pairs: Table of user_id, item_id and, optionally, timestamp; without one, the time is that
            of ``options.as_of``. Files in any format that training takes. Rows of one user should
            be neighbours, as a user's history is read once a part.
        out: Folder for the parts, which machines with other shards may share. Without shards also
            a file that ends in ``.parquet``, to which the parts are joined at the end.
        options: Events, moment, shard, engine and device.
        progress: Function called after each part with the number of finished rows of the shard.

    Raises:
        LeakageError: If ``as_of`` is before the bundle's split, or a pair is before ``as_of``.
        DataError: If a table cannot be read, or has no valid row (checked where there is one
            shard), or if the folder is of a run with another bundle, table or setting.
        SchemaError: If a column is missing or has a type that cannot be read.
        MissingPartError: If the bundle was trained without events.
        FileAccessError: If a file cannot be written.
        MissingExtraError: If the engine is not installed.
        InvalidArgumentError: If ``out`` has another suffix, the shard has no part, or ``as_of`` is
            given and each user of the bundle has a split of their own.
    """
    bundle.require("ranking")
    shard, out = options.shard, out.absolute()
    folder, as_of_us = folder_of(out, shard), _moment(bundle, options.as_of)
    # Absolute, because the processes of a cluster start in other folders.
    source = bundle.path / EVENTS if options.events is None else options.events
    events = tuple(path.resolve() for path in find_files(source))
    inputs = {
        "bundle": bundle.version,
        "table": fingerprint(pairs),
        "events": None if options.events is None else fingerprint(events),
        "as_of_us": as_of_us,
    }
    table = InputTable("pairs", pairs, PairSchema)
    parts = begin_run(table, folder, inputs, options.rows_per_part, shard)
    if parts.missing(shard):
        _check_times(parts.table, bundle.as_of_us if as_of_us is None else as_of_us)
        job = FeatureJob(bundle.path, parts, events, as_of_us, options.device)
        make_missing(job, shard, options.engine, "pairs", progress)
    return Featured(*finish_run(parts, shard, out, "pairs"))


def _moment(bundle: Bundle, as_of: datetime | None) -> int | None:
    """Return the moment up to which the items are known; None is the end of the events."""
    if as_of is None:
        return None
    as_of_us, split_us = to_us("as_of", as_of), bundle.split_us
    if not isinstance(split_us, int):
        raise InvalidArgumentError(
            "as_of must be left out where each user of the bundle has a split of their own, got "
            f"{as_of}; train with [split] protocol = 'time' to choose a moment"
        )
    if as_of_us < split_us:
        raise LeakageError(
            f"as_of must not be before the split of the bundle ({from_us(split_us)}), up to which "
            f"its user encoder has learned, got {as_of}; set a later as_of, or train with an "
            "earlier [split] at"
        )
    return as_of_us


def _check_times(table: Path, as_of_us: int | None) -> None:
    """Raise if a pair is before the moment up to which the items are known."""
    first = pl.scan_parquet(table, glob=False).select(pl.col("timestamp").min())
    earliest = first.collect(engine="streaming").item()
    if earliest is not None and as_of_us is not None and earliest < from_us(as_of_us):
        raise LeakageError(
            f"every pair must be at or after the moment as of which the items are known, "
            f"{from_us(as_of_us)}, got one at {earliest}; set an earlier as_of, or leave it out"
        )


@dataclass(frozen=True)
class FeatureJob:
    """What the parts of the features are made from; see ``recsys.bulk.parts.Job``.

    Args:
        bundle: Folder of the bundle.
        parts: Paths of the parts.
        events: Files of the events table.
        as_of_us: As of when the items are known, microseconds UTC; None is the end of the events.
        device: Device of the item table and the user encoder.
    """

    bundle: Path
    parts: Parts
    events: tuple[Path, ...]
    as_of_us: int | None
    device: str

    def build(self) -> Callable[[int], None]:
        """Return a function that makes the part of a given number, with the tables loaded."""
        features = PairFeatures(Bundle(self.bundle), self.as_of_us, device=self.device)
        return lambda part: make_part(self, features, part)


class PairFeatures:
    """Computes the ranking features of pairs, as a recommender of the bundle does.

    Args:
        bundle: Bundle with a ranking part.
        as_of_us: As of when the items are known, microseconds UTC; None is the end of the events.
        device: Device of the item table and the user encoder.
    """

    def __init__(self, bundle: Bundle, as_of_us: int | None = None, *, device: str = "cpu") -> None:
        if as_of_us is None:
            statistics, ranker = bundle.statistics, bundle.user_ranker
        else:
            _, statistics, ranker = bundle.known_at(as_of_us)
        self.item_ids = bundle.items["item_id"]
        # Bundles of earlier releases may have kinds in upper case; events no longer do.
        self.kind_names = [name.lower() for name in bundle.kind_names]
        self.as_of_us = statistics.as_of_us
        self._ranker = ranker.to(device)
        catalogue = Catalogue(bundle.items, bundle.item_embeddings, device=device)
        kinds = torch.tensor([name in bundle.target_kinds for name in bundle.kind_names])
        self._table = build_item_table(catalogue, statistics, kinds)

    def read_histories(self, events: Source, users: pl.Series) -> dict[str, History]:
        """Return the histories of those users who have events of known items and kinds.

        Args:
            events: Events table.
            users: User ids.
        """
        known = (
            pl.col("user_id").is_in(users.unique().implode()),
            pl.col("item_id").is_in(self.item_ids.implode()),
            pl.col("kind").is_in(self.kind_names),
            pl.col("timestamp").is_not_null(),
        )
        rows = scan_table(events, EventSchema).select(_EVENT_COLUMNS).filter(*known)
        found = build_interactions(rows.collect(engine="streaming"), self.item_ids.to_list())
        codes = np.array([self.kind_names.index(name) for name in found.kind_names], dtype=np.int64)
        return {
            user_id: history._replace(kinds=codes[history.kinds])
            for user_id, history in zip(found.user_ids, found.histories(), strict=True)
        }

    @torch.inference_mode()
    def compute(
        self,
        histories: Sequence[History],
        now_us: Ints,
        rows: Sequence[Ints],
        *,
        block_size: int | None = None,
    ) -> Tensor:
        """Return the features (P, F) of every item asked of every user, user after user.

        Args:
            histories: Events of each user (B entries), those at or after the moment ignored.
            now_us: Moment of each user's request, microseconds UTC (B,).
            rows: Item rows asked of each user, P in all (B entries).
            block_size: Users at once, by default by the size of the catalogue.
        """
        size = block_size or max(1, CELLS_AT_ONCE // len(self._table))
        blocks = [torch.empty(0, len(FEATURES))]
        for start in range(0, len(histories), size):
            some = slice(start, start + size)
            profiles = self._ranker.profiles(histories[some], now_us[some], self._table)
            asked = [torch.tensor(one) for one in rows[some]]
            padded = torch.nn.utils.rnn.pad_sequence(asked, batch_first=True)  # (B, C)
            found = ranking_features(profiles, padded.to(self._table.factors.device), self._table)
            blocks += [one[: len(own)].cpu() for one, own in zip(found, asked, strict=True)]
        return torch.cat(blocks)


def make_part(job: FeatureJob, features: PairFeatures, part: int) -> None:
    """Write the features of a part's pairs, and its failures.

    Failures are written first, so a part with features is complete.
    """
    size = job.parts.rows_per_part
    rows = pl.scan_parquet(job.parts.table, glob=False).slice(part * size, size)
    known = {"item_id|known": pl.col("item_id").is_in(features.item_ids.implode())}
    loaded = validate(rows, PairSchema, table="pairs", rules=known)
    failures = loaded.report.failures.with_columns(pl.col("row") + part * size)
    # A run that ended right after writing it may have left one.
    job.parts.quarantine(part).unlink(missing_ok=True)
    if len(failures):
        with whole_file(job.parts.quarantine(part)) as scratch:
            failures.write_parquet(scratch)
    with whole_file(job.parts.output(part)) as scratch:
        _with_features(loaded.frame.drop("row"), features, job.events).write_parquet(scratch)


def _with_features(
    pairs: pl.DataFrame, features: PairFeatures, events: Sequence[Path]
) -> pl.DataFrame:
    """Return valid pairs with their features; each user and moment is looked at once."""
    pairs = pairs.with_columns(pl.col("timestamp").fill_null(from_us(features.as_of_us)))
    codes = pl.DataFrame({"item_id": features.item_ids}).with_row_index("item_row")
    rows = pairs.join(codes, on="item_id", how="left", maintain_order="left")
    asked = (
        rows.with_row_index("place")
        .group_by("user_id", "timestamp", maintain_order=True)
        .agg("place", "item_row")
        .sort(pl.col("place").list.len(), maintain_order=True)  # alike, so that little is padded
    )
    histories = features.read_histories(events, asked["user_id"])
    found = features.compute(
        [histories.get(user_id, EMPTY_HISTORY) for user_id in asked["user_id"]],
        asked["timestamp"].dt.timestamp("us").to_numpy(),
        [one.cast(pl.Int64).to_numpy() for one in asked["item_row"]],
    )
    places = asked["place"].explode().to_numpy()
    values = np.empty(found.shape, dtype=np.float32)
    values[places] = found.numpy()
    columns = {name: values[:, column] for column, name in enumerate(FEATURES)}
    return pairs.with_columns(**columns)
