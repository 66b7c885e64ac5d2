"""A snapshot of planted items and users, whose features reveal which item they are of."""

import numpy as np
import torch
from torch import Tensor

from recsys.data.arrays import Ints
from recsys.data.interactions import EMPTY_HISTORY, MICROSECONDS_PER_DAY, History
from recsys.models.user_encoder import UserEncoder, UserEncoderSpec
from recsys.ranking.features import FEATURES
from recsys.ranking.item_table import ItemTable, Neighbours
from recsys.ranking.rankers import SimpleRanker
from recsys.ranking.scoring import UserRanker
from recsys.ranking.tempo import Tempo
from recsys.training.ranking import Snapshot

DAY = MICROSECONDS_PER_DAY
CUT = 1_000 * DAY
N_ITEMS, DIM = 120, 6


def item_table() -> ItemTable:
    """Return items whose age in days is their row, so that features reveal their item."""
    rng = np.random.default_rng(0)

    def uniform(*shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(0, 3, shape).astype(np.float32))

    def neighbours() -> Neighbours:
        return Neighbours(torch.from_numpy(rng.integers(0, N_ITEMS, (N_ITEMS, 5))), uniform(120, 5))

    return ItemTable(
        tempo=Tempo(pause_days=3.0, window_days=1.0),
        embeddings=torch.nn.functional.normalize(uniform(N_ITEMS, DIM) - 1.5, dim=1),
        log_prices=torch.full((N_ITEMS,), torch.nan),
        categories=torch.full((N_ITEMS, 4), -1),
        n_categories=0,
        created_us=CUT - torch.arange(N_ITEMS) * DAY,
        users=uniform(N_ITEMS, 5),
        buyers=uniform(N_ITEMS, 5),
        season_users=uniform(N_ITEMS),
        ease=neighbours(),
        cosine=neighbours(),
        following=neighbours(),
        related={},
        factors=uniform(N_ITEMS, 3),
        target_kinds=torch.tensor([True]),
    )


def purchases(rows: list[int], days_before: list[float]) -> History:
    """Return the history of these items, bought so many days before the cut."""
    times_us = [round(CUT - days * DAY) for days in days_before]
    return History(np.array(rows), np.zeros(len(rows), dtype=np.int64), np.array(times_us))


def snapshot_of(
    histories: list[History], answers: list[Ints], *, candidates: Ints | None = None
) -> Snapshot:
    """Return the snapshot of some users, all at the cut; by default the first 100 items are on
    offer.
    """
    return Snapshot(
        table=item_table(),
        histories=histories,
        moments_us=np.full(len(histories), CUT),
        answers=answers,
        candidates=np.arange(100) if candidates is None else candidates,
    )


def snapshot() -> Snapshot:
    """Return 12 users; the last has no answer, and the 11th only an answer that is not on offer."""
    rng = np.random.default_rng(1)
    histories = [purchases(rng.integers(0, N_ITEMS, 4).tolist(), [9, 5, 2, 1]) for _ in range(11)]
    answers: list[Ints] = [np.sort(rng.choice(100, 1 + user % 3, False)) for user in range(10)]
    nothing = np.empty(0, dtype=np.int64)
    return snapshot_of([*histories, EMPTY_HISTORY], [*answers, np.array([110]), nothing])


def untrained_encoder() -> UserEncoder:
    """Return a user encoder with the same random weights each time."""
    torch.manual_seed(0)
    return UserEncoder(DIM, n_kinds=1, spec=UserEncoderSpec()).eval()


def items_of(features: Tensor) -> Ints:
    """Return the rows of the items that features (..., F) are of."""
    age = features[..., FEATURES.index("age")]
    return np.asarray(age.double().expm1().round().long().numpy())


def served_features(shot: Snapshot, user: int) -> Tensor:
    """Return the features that the service computes for every item on offer (N_c, F)."""
    service = UserRanker(untrained_encoder(), SimpleRanker("popularity"))
    profiles = service.profiles([shot.histories[user]], shot.moments_us[[user]], shot.table)
    return service.score(profiles, torch.from_numpy(shot.candidates), shot.table).features[0]
