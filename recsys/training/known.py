"""The stage "statistics": what the events said of the items at each cut, at the split and now."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from recsys.data.interactions import Moment
from recsys.ranking.statistics import Statistics, build_statistics
from recsys.ranking.stored import load_statistics, save_statistics
from recsys.training.cuts import window_days
from recsys.training.inputs import Behaviour
from recsys.training.stages import Runtime


class KnownItems(NamedTuple):
    """Where the statistics of each moment lie; they are read when they are needed.

    Args:
        folder: Folder of the stage.
        n_moments: Number of moments: the cuts, the split, and the end of the events.
        key: Hash of what the statistics depend on.
    """

    folder: Path
    n_moments: int
    key: str

    def at(self, number: int) -> Statistics:
        """Return the statistics of a moment, by its number; -1 is the end of the events."""
        return load_statistics(_file(self.folder, range(self.n_moments)[number]))


def count_events(behaviour: Behaviour, runtime: Runtime) -> KnownItems:
    """Return the statistics of the stage "statistics".

    They depend on no embedding, so ablations share them.

    Args:
        behaviour: Events, and the moments at which they are cut.
        runtime: How to run the stage.
    """
    moments = (*behaviour.cuts_us, int(behaviour.interactions.timestamps_us[-1]) + 1)
    stage = runtime.workspace.run(
        "statistics",
        {"shop": behaviour.key, "relations": behaviour.relations_key},
        lambda folder: _write(behaviour, moments, folder),
    )
    return KnownItems(stage.folder, len(moments), stage.key)


def _write(behaviour: Behaviour, moments: Sequence[Moment], folder: Path) -> None:
    for number, moment in enumerate(moments):
        statistics = build_statistics(
            behaviour.interactions,
            moment,
            target_kinds=behaviour.target_kinds,
            related=behaviour.related,
            window_days=window_days(behaviour.interactions, behaviour.cuts_us),
        )
        save_statistics(statistics, _file(folder, number))


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number}.safetensors"
