"""Train the rankers on snapshots: what was known at past moments, and what was bought after."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from recsys.config import RankerConfig
from recsys.data.arrays import Ints
from recsys.data.interactions import History, Interactions, Moment
from recsys.errors import TrainingError
from recsys.models.losses import listwise_softmax_loss
from recsys.models.ranker import Ranker, build_ranker
from recsys.models.trees import TreeQueries, TreeRanker, train_trees
from recsys.models.user_encoder import UserEncoder
from recsys.ranking.arithmetic import exact
from recsys.ranking.features import COLD_VALUES, FEATURES, ranking_features
from recsys.ranking.item_table import ItemTable
from recsys.ranking.profiles import UserProfiles, read_profiles
from recsys.ranking.scoring import encode_users
from recsys.training.loop import adamw, fit
from recsys.training.rows import EpochSampler, row_batches
from vision.training.callbacks import VALIDATION_LOSS
from vision.training.run import FitSettings, TrainingRun

CELLS_AT_ONCE = 400_000  # users times items whose scores are in memory together
LEAST_STEPS = 8  # of an epoch of the network; with fewer it stops long before it has learned


@dataclass(frozen=True)
class Snapshot:
    """What was known of the items at one past moment, and what users took after moments of theirs.

    Args:
        table: Items as they were known.
        histories: Histories of all users (U); each counts up to the user's moment.
        moments_us: Moment of each user's request, microseconds UTC (U,).
        answers: Item rows that each user took after the moment (U).
        candidates: Item rows on offer, int64 (N_c,).
    """

    table: ItemTable
    histories: Sequence[History]
    moments_us: Ints
    answers: Sequence[Ints]
    candidates: Ints


@dataclass(frozen=True)
class RankingExamples:
    """Queries, each with its candidates.

    Args:
        features: Features of the candidates, float32 (Q, C, F).
        relevance: Label of each candidate, float32 (Q, C): 1 for an answer, 0 for a negative, and
            -1 for padding.
    """

    features: Tensor
    relevance: Tensor


def answers_between(targets: Interactions, start: Moment, end: Moment) -> list[Ints]:
    """Return the distinct item rows of each of the U users from start until before end."""
    window, n_items = targets.between(start, end), targets.n_items
    codes = np.unique(window.user_rows * n_items + window.item_rows)
    bounds = np.searchsorted(codes, np.arange(targets.n_users + 1) * n_items).tolist()
    rows: Ints = codes % n_items
    return [rows[first:last] for first, last in pairwise(bounds)]


def sample_examples(
    snapshot: Snapshot, encoder: UserEncoder, *, n_queries: int, n_candidates: int, seed: int
) -> RankingExamples:
    """Return queries of random users with an answer: their answers, and random other items.

    The other items are uniform. Where half of them were top candidates of some features, training
    met other distributions of those features than a ranking of the catalogue does, and ranked it
    far worse.

    Args:
        snapshot: What was known at past moments, and what was taken after them.
        encoder: User encoder that was trained on events before the moments only.
        n_queries: Maximum number of queries Q, each of another user.
        n_candidates: Maximum number of candidates C of a query.
        seed: Random seed of the sampling.

    Raises:
        TrainingError: If no user has an answer that was on offer.
    """
    generator = np.random.default_rng(seed)
    on_offer = snapshot.candidates
    answers_of = offered_answers(snapshot)
    asked = np.flatnonzero([len(rows) for rows in answers_of])
    if len(asked) == 0:
        raise TrainingError(
            "the ranker needs users with events of the target kinds after a cut, got none; "
            "use a longer [split] horizon or fewer cuts"
        )
    asked = np.sort(generator.permutation(asked)[:n_queries])
    n_candidates = min(n_candidates, len(on_offer))
    candidates = np.empty((len(asked), n_candidates), dtype=np.int64)
    relevance = np.empty((len(asked), n_candidates), dtype=np.float32)
    for query, user in enumerate(asked.tolist()):
        picked = _pick(on_offer, answers_of[user], n_candidates, generator)
        candidates[query] = picked
        relevance[query] = np.isin(picked, answers_of[user])
    features = torch.empty(len(asked), n_candidates, len(FEATURES))
    for some, profiles in profile_blocks(snapshot, asked, encoder):
        rows = torch.from_numpy(candidates[some]).to(profiles.vectors.device)
        features[some] = ranking_features(profiles, rows, snapshot.table).cpu()
    return RankingExamples(features, torch.from_numpy(relevance))


def any_answers(snapshot: Snapshot) -> bool:
    """Return whether any user has an answer that was on offer."""
    return any(len(rows) for rows in offered_answers(snapshot))


def offered_answers(snapshot: Snapshot) -> list[Ints]:
    """Return each user's answers that were on offer (U)."""
    is_on_offer = np.zeros(len(snapshot.table), dtype=np.bool_)
    is_on_offer[snapshot.candidates] = True
    return [rows[is_on_offer[rows]] for rows in snapshot.answers]


@torch.inference_mode()
def profile_blocks(
    snapshot: Snapshot, users: Ints, encoder: UserEncoder
) -> Iterator[tuple[slice, UserProfiles]]:
    """Yield the profiles of some users at their moments, block by block, with their positions."""
    size, encoder = max(1, CELLS_AT_ONCE // len(snapshot.table)), exact(encoder)
    for start in range(0, len(users), size):
        some = slice(start, min(start + size, len(users)))
        histories = [snapshot.histories[user] for user in users[some].tolist()]
        now_us = snapshot.moments_us[users[some]]
        vectors = encode_users(encoder, histories, now_us, snapshot.table.embeddings)
        yield some, read_profiles(histories, now_us, snapshot.table, vectors)


def _pick(on_offer: Ints, answers: Ints, n_candidates: int, generator: np.random.Generator) -> Ints:
    """Return the item rows (C,) of one query's candidates: answers first, then other items."""
    answers = generator.permutation(answers)[: max(1, n_candidates // 2)]
    others = on_offer[~np.isin(on_offer, answers)]
    others = generator.choice(others, n_candidates - len(answers), replace=False)
    return np.concatenate([answers, others])


def fit_trees(
    examples: Sequence[RankingExamples], config: RankerConfig, *, seed: int
) -> TreeRanker:
    """Return trees that were trained on all queries.

    The events of some candidates are hidden, so that the trees learn to judge new items.

    Args:
        examples: Queries, one entry a snapshot.
        config: Sizes and schedule.
        seed: Random seed.
    """
    parts = [
        _tree_queries(one, hide=config.hide_events, seed=seed + n) for n, one in enumerate(examples)
    ]
    queries = TreeQueries(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return train_trees(queries, config.trees, FEATURES, seed=seed, threads=torch.get_num_threads())


def _tree_queries(examples: RankingExamples, *, hide: float, seed: int) -> TreeQueries:
    present = examples.relevance >= 0
    features = examples.features[present]  # (n, F), a copy
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.rand(len(features), generator=generator) < hide
    for name, value in COLD_VALUES.items():
        features[hidden, FEATURES.index(name)] = value
    return TreeQueries(
        features.numpy(), examples.relevance[present].numpy(), present.sum(dim=1).numpy()
    )


def train_ranker(
    examples: Sequence[RankingExamples],
    validation: RankingExamples | None,
    config: RankerConfig,
    run: TrainingRun,
    *,
    epochs: int | None = None,
) -> tuple[Ranker, int]:
    """Return a network trained with a listwise softmax loss, and the epochs that trained it.

    Args:
        examples: Queries, one entry a cut.
        validation: Queries of a later cut, at whose lowest loss the network is taken; None takes
            it after ``epochs``.
        config: Sizes and schedule.
        run: Folder of the checkpoints, seed and device. An interrupted run is resumed from it.
        epochs: Number of passes, at most those of the schedule; None is all of them.

    Raises:
        TrainingError: If the loss is not finite, or the checkpoint is damaged or of another run.
    """
    with isolate_rng():
        torch.manual_seed(run.seed)
        ranker = build_ranker(config, len(FEATURES))
    together = _join(examples)
    ranker.fit_scale(together.features[together.relevance >= 0])
    n_queries = len(together.relevance)
    sampler = EpochSampler(lambda rng: rng.permutation(n_queries), n_queries, seed=run.seed)
    batches = row_batches(sampler, min(config.batch_size, max(1, n_queries // LEAST_STEPS)))
    module = _RankerModule(ranker, together, validation, config, n_steps=len(batches))
    if validation is None:
        settings = FitSettings(epochs or config.epochs, None, "last", "32-true")
        return module.ranker, fit(module, batches, None, settings, run)
    rows = row_batches(range(len(validation.relevance)), config.batch_size)
    settings = FitSettings(epochs or config.epochs, config.patience, "best", "32-true")
    return module.ranker, fit(module, batches, rows, settings, run)


def _join(examples: Sequence[RankingExamples]) -> RankingExamples:
    """Return all queries together, those with fewer candidates padded: early cuts offered fewer."""
    most = max(part.relevance.shape[1] for part in examples)
    features, relevance = [], []
    for part in examples:
        missing = most - part.relevance.shape[1]
        features.append(F.pad(part.features, (0, 0, 0, missing)))
        relevance.append(F.pad(part.relevance, (0, missing), value=-1.0))
    return RankingExamples(torch.cat(features), torch.cat(relevance))


class _RankerModule(L.LightningModule):
    """Lightning module of :func:`train_ranker`; a batch holds numbers of queries.

    It hides the events of random candidates, so that the ranker learns to judge new items.
    """

    def __init__(
        self,
        ranker: Ranker,
        examples: RankingExamples,
        validation: RankingExamples | None,
        config: RankerConfig,
        *,
        n_steps: int,
    ) -> None:
        super().__init__()
        self.ranker = ranker
        self.config = config
        self.n_steps = n_steps
        self._examples, self._validation = examples, validation
        self._cold_columns = [FEATURES.index(name) for name in COLD_VALUES]
        self._own_column = FEATURES.index("own_purchases")
        self._cold_values = torch.tensor(list(COLD_VALUES.values()))

    def training_step(self, rows: Tensor, batch_index: int) -> Tensor:
        """Return the loss of queries (B,)."""
        rows = rows.cpu()  # the examples stay in host memory
        features = self._examples.features[rows].to(self.device)  # (B, C, F), a copy
        hidden = torch.rand(features.shape[:2], device=self.device) < self.config.hide_events
        cold = features[hidden]  # (n, F)
        cold[:, self._cold_columns] = self._cold_values.to(cold)
        features[hidden] = cold
        return self._loss(features, self._examples.relevance[rows])

    def validation_step(self, rows: Tensor, batch_index: int) -> None:
        """Log the loss of validation queries (B,)."""
        rows = rows.cpu()
        assert self._validation is not None, "without it there are no validation batches"
        loss = self._loss(
            self._validation.features[rows].to(self.device), self._validation.relevance[rows]
        )
        self.log(VALIDATION_LOSS, loss, prog_bar=True, batch_size=len(rows))

    def configure_optimizers(self) -> Any:
        """Return AdamW on the configured schedule."""
        return adamw(
            self.ranker,
            n_steps=self.n_steps * self.config.epochs,
            learning_rate=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
        )

    def _loss(self, features: Tensor, relevance: Tensor) -> Tensor:
        """Return the loss over all candidates, plus the loss over items new to the user.

        Items that a user took before are easy to rank first. With the first loss alone, the ranker
        would learn little else.
        """
        logits, relevance = self.ranker(features), relevance.to(self.device)
        everything = relevance >= 0
        new = everything & (features[..., self._own_column] == 0)
        repeating = listwise_softmax_loss(logits, relevance, everything)
        discovering = listwise_softmax_loss(logits, relevance, new)
        return repeating + self.config.discovery_weight * discovering
