"""Train the ranker on snapshots: what was known at a past moment, and what was bought after it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.seed import isolate_rng
from numpy.typing import NDArray
from torch import Tensor

from recsys.config import RankerConfig
from recsys.data.arrays import Ints
from recsys.data.interactions import History, Interactions
from recsys.errors import TrainingError
from recsys.models.losses import listwise_softmax_loss
from recsys.models.ranker import Ranker, build_ranker
from recsys.models.user_encoder import UserEncoder
from recsys.ranking.features import COLD_VALUES, FEATURES, ItemTable, ranking_features
from recsys.ranking.scoring import encode_users
from recsys.training.loop import adamw, fit
from recsys.training.rows import EpochSampler, row_batches
from vision.training.callbacks import VALIDATION_LOSS
from vision.training.run import FitSettings, TrainingRun

# Features whose top candidates become hard negatives, since retrieval would offer them.
HARD_BY = ("user_affinity", "bought_together", "recent_popularity", "profile_similarity")
ENCODED_AT_ONCE = 256  # users


@dataclass(frozen=True)
class Snapshot:
    """What was known at one past moment, the cut, and what users bought after it.

    Args:
        cut_us: Time of the cut, microseconds UTC.
        table: Items as they were known at the cut.
        histories: Histories of all users (U); events after the cut are ignored.
        answers: Item rows that each user bought in the window after the cut (U).
        candidates: Item rows on offer at the cut, int64 (N_c,).
    """

    cut_us: int
    table: ItemTable
    histories: Sequence[History]
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


def answers_between(targets: Interactions, start_us: int, end_us: int) -> list[Ints]:
    """Return the distinct item rows of each of the U users from start_us until before end_us."""
    window = targets.between(start_us, end_us)
    return [np.unique(history.item_rows) for history in window.histories()]


def sample_examples(
    snapshot: Snapshot, encoder: UserEncoder, *, n_queries: int, n_candidates: int, seed: int
) -> RankingExamples:
    """Return queries of random users with an answer: their answers, hard and random negatives.

    Half of the negatives are top candidates by the features in ``HARD_BY``, the others are uniform.

    Args:
        snapshot: What was known at a cut, and what was bought after it.
        encoder: User encoder that was trained on events before the cut only.
        n_queries: Maximum number of queries Q, each of another user.
        n_candidates: Maximum number of candidates C of a query.
        seed: Random seed of the sampling.

    Raises:
        TrainingError: If no user has an answer that was on offer at the cut.
    """
    generator = np.random.default_rng(seed)
    on_offer = snapshot.candidates
    is_on_offer = np.zeros(len(snapshot.table), dtype=np.bool_)
    is_on_offer[on_offer] = True
    answers_of = [rows[is_on_offer[rows]] for rows in snapshot.answers]
    asked = np.flatnonzero([len(rows) for rows in answers_of])
    if len(asked) == 0:
        raise TrainingError(
            "the ranker needs users with events of the target kinds after a cut, got none; "
            "use a longer [split] horizon or fewer cuts"
        )
    asked = np.sort(generator.permutation(asked)[:n_queries])
    vectors = _user_vectors(snapshot, asked, encoder)
    n_candidates = min(n_candidates, len(on_offer))
    features = torch.empty(len(asked), n_candidates, len(FEATURES))
    relevance = torch.zeros(len(asked), n_candidates)
    rows_on_offer = torch.from_numpy(on_offer)
    for index, user in enumerate(asked.tolist()):
        every = ranking_features(
            [snapshot.histories[user]],
            rows_on_offer,
            snapshot.cut_us,
            snapshot.table,
            vectors[index : index + 1],
        )[0]  # (N, F)
        is_answer = np.isin(on_offer, answers_of[user])
        picked = _pick(every, is_answer, n_candidates, generator)
        features[index] = every[torch.from_numpy(picked)]
        relevance[index] = torch.from_numpy(is_answer[picked])
    return RankingExamples(features, relevance)


@torch.inference_mode()
def _user_vectors(snapshot: Snapshot, users: Ints, encoder: UserEncoder) -> Tensor:
    """Return the vectors (Q, D) of these users at the cut."""
    vectors = []
    for start in range(0, len(users), ENCODED_AT_ONCE):
        histories = [
            snapshot.histories[user] for user in users[start : start + ENCODED_AT_ONCE].tolist()
        ]
        now_us = np.full(len(histories), snapshot.cut_us)
        vectors.append(encode_users(encoder, histories, now_us, snapshot.table.embeddings))
    return torch.cat(vectors)


def _pick(
    features: Tensor,
    is_answer: NDArray[np.bool_],
    n_candidates: int,
    generator: np.random.Generator,
) -> Ints:
    """Return the positions (C,) of one query's candidates: answers first, then negatives."""
    answers = generator.permutation(np.flatnonzero(is_answer))[: n_candidates // 2]
    n_hard = (n_candidates - len(answers)) // 2
    per_feature = -(-n_hard // len(HARD_BY))
    columns = [FEATURES.index(name) for name in HARD_BY]
    top = features[:, columns].topk(min(2 * per_feature, len(features)), dim=0).indices
    hard = np.setdiff1d(top.numpy(), np.flatnonzero(is_answer))
    hard = generator.permutation(hard)[:n_hard]
    rest = np.setdiff1d(np.arange(len(features)), np.concatenate([answers, hard]))
    return np.concatenate([answers, hard, generator.permutation(rest)])[:n_candidates]


def train_ranker(
    examples: Sequence[RankingExamples],
    validation: RankingExamples,
    config: RankerConfig,
    run: TrainingRun,
) -> Ranker:
    """Return a ranker trained with a listwise softmax loss, at its lowest validation loss.

    Args:
        examples: Queries of the earlier cuts, one entry a cut.
        validation: Queries of the last cut.
        config: Sizes and schedule.
        run: Folder of the checkpoints, seed and device. An interrupted run is resumed from it.

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
    batches = row_batches(sampler, config.batch_size)
    module = _RankerModule(ranker, together, validation, config, n_steps=len(batches))
    fit(
        module,
        batches,
        row_batches(range(len(validation.relevance)), config.batch_size),
        FitSettings(config.epochs, config.patience, "best", "32-true"),
        run,
    )
    return module.ranker.eval()


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
        validation: RankingExamples,
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
