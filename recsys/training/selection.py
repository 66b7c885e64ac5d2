"""Choose what ranks, on the last window before the split."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.config import RankerConfig
from recsys.models.user_encoder import UserEncoder
from recsys.ranking.features import FEATURES, ranking_features
from recsys.ranking.profiles import UserProfiles
from recsys.ranking.rankers import NETWORK, SIMPLE, Blend, Ranker, SimpleRanker
from recsys.training.ranking import Snapshot, offered_answers, profile_blocks

# "all" ranks the whole catalogue, "new" what the user does not have yet.
Scope = Literal["all", "new"]
SCOPES: tuple[Scope, ...] = ("all", "new")
VALIDATION_USERS = 1_000
# Items of a larger catalogue beyond these are left out, but for answers.
VALIDATION_ITEMS = 5_000
K = 10
TIE = 0.02  # a smaller loss, relative to the best, is a tie if it is within the noise, too


# NDCG@10 of each asked user (n,) by scope and ranker; nan for a user who is not asked in the scope.
Results: TypeAlias = Mapping[Scope, Mapping[str, NDArray[np.float64]]]


class Trial(NamedTuple):
    """One ranker's result on the validation window.

    Args:
        scope: Scope of the queries.
        name: Name of the ranker.
        ndcg: Mean NDCG@10.
    """

    scope: Scope
    name: str
    ndcg: float


class Choice(NamedTuple):
    """What ranks in each scope, and the trials behind the choice.

    Args:
        all: Name of the ranker of the whole catalogue.
        new: Name of the ranker where the user's own items are left out.
        trials: Results of all rankers, best first; empty without a comparison.
    """

    all: str
    new: str
    trials: tuple[Trial, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the choice as JSON values."""
        return {"all": self.all, "new": self.new, "trials": [one._asdict() for one in self.trials]}


def read_choice(values: Mapping[str, Any]) -> Choice:
    """Return the choice that ``to_json`` wrote."""
    return Choice(values["all"], values["new"], tuple(Trial(**one) for one in values["trials"]))


def measure_rankers(
    snapshot: Snapshot, encoder: UserEncoder, trained: Mapping[str, Ranker], *, seed: int
) -> Results:
    """Return NDCG@10 of a sample of users by the simple rankers and the trained ones.

    The same seed asks the same users in the same order, whatever the encoder and the rankers.

    Args:
        snapshot: The last window before the split.
        encoder: User encoder that was trained on earlier events only.
        trained: Rankers that were trained on earlier windows, simplest first.
        seed: Random seed of the sample of users.
    """
    rankers: dict[str, Ranker] = {name: SimpleRanker(name) for name in SIMPLE} | dict(trained)
    generator = np.random.default_rng(seed)
    answers_of = offered_answers(snapshot)
    asked = np.flatnonzero([len(rows) for rows in answers_of])
    asked = np.sort(generator.permutation(asked)[:VALIDATION_USERS])
    rows = generator.permutation(snapshot.candidates)[:VALIDATION_ITEMS]
    needed = [answers_of[user] for user in asked.tolist()]
    rows = np.unique(np.concatenate([rows, *needed]))
    found = {scope: {name: np.full(len(asked), np.nan) for name in rankers} for scope in SCOPES}
    for some, profiles in profile_blocks(snapshot, asked, encoder):
        relevant = torch.from_numpy(np.stack([np.isin(rows, one) for one in needed[some]]))
        block = {
            scope: {name: values[some] for name, values in by_name.items()}
            for scope, by_name in found.items()
        }
        _score_block(snapshot, profiles, torch.from_numpy(rows), relevant, rankers, block)
    return found


def choose_ranker(results: Results, config: RankerConfig) -> Choice:
    """Return the ranker of each scope: the simplest of those that are not clearly worse.

    Rankers are compared by NDCG@10 on the same users. The simplest wins whose difference to the
    best is within one standard error of that difference (Breiman et al., 1984), and below 2 % of
    the best. With few users the error alone would make a tie of everything.

    Args:
        results: Result of :func:`measure_rankers`.
        config: Which of the rankers may be chosen.
    """
    counted = {
        scope: {name: values[~np.isnan(values)] for name, values in by_name.items()}
        for scope, by_name in results.items()
    }
    chosen = {
        scope: _simplest(values, only=None if config.kind == "auto" else config.kind)
        for scope, values in counted.items()
    }
    trials = [
        Trial(scope, name, float(values.mean()))
        for scope, by_name in counted.items()
        for name, values in sorted(by_name.items(), key=lambda one: -one[1].sum())
        if len(values)
    ]
    return Choice(chosen["all"], chosen["new"], tuple(trials))


def _simplest(results: Mapping[str, NDArray[np.float64]], only: str | None) -> str:
    if only is not None:
        return only
    names = list(results)
    if not len(results[names[0]]):
        return NETWORK  # nobody can be asked, and it needs the fewest events
    means = {name: values.mean() for name, values in results.items()}
    best = max(names, key=lambda name: means[name])
    for name in names:
        lost = results[best] - results[name]
        error = lost.std() / np.sqrt(len(lost))
        if lost.mean() <= min(error, TIE * means[best]):
            return name
    return best


def _score_block(
    snapshot: Snapshot,
    profiles: UserProfiles,
    rows: Tensor,
    relevant: Tensor,
    rankers: Mapping[str, Ranker],
    found: Results,
) -> None:
    """Fill in the NDCG@10 of a block of users."""
    features = ranking_features(profiles, rows.to(profiles.vectors.device), snapshot.table).cpu()
    owned = features[..., FEATURES.index("own_purchases")] > 0  # of the target kinds
    known = profiles.events.counts.cpu() > 0  # as in evaluation, which asks for a history
    done: dict[int, Tensor] = {}  # by the ranker's identity; blends share their parts
    for name, ranker in rankers.items():
        if isinstance(ranker, Blend) and all(id(part) in done for part in ranker.rankers):
            scores = ranker.combine([done[id(part)] for part in ranker.rankers])
        else:
            scores = done[id(ranker)] = ranker(features).cpu()
        for scope in SCOPES:
            out = owned if scope == "new" else torch.zeros_like(owned)
            wanted = relevant & ~out
            asked = wanted.any(dim=1) & known
            top = scores.masked_fill(out, -torch.inf)[asked].topk(min(K, len(rows)), dim=1)
            found[scope][name][asked.numpy()] = ndcg(wanted[asked], top.indices).numpy()


def ndcg(relevant: Tensor, ranked: Tensor) -> Tensor:
    """Return the NDCG of rankings with binary gains (B,), as ``recsys.evaluation.metrics`` does.

    Args:
        relevant: Which items are right, bool (B, N), at least one a row.
        ranked: Positions of the first K items, int64 (B, K).
    """
    k = ranked.shape[1]
    discounts = 1 / torch.log2(torch.arange(2, k + 2, dtype=torch.float64))
    gains = (relevant.gather(1, ranked) * discounts).sum(dim=1)
    ideal = discounts.cumsum(0)[relevant.sum(dim=1).clamp(max=k) - 1]
    return gains / ideal
