"""Ranking queries whose answers are planted in some of the features."""

import torch

from recsys.models.ranker import Ranker
from recsys.models.trees import TreeRanker
from recsys.ranking.features import FEATURES
from recsys.training.ranking import RankingExamples


def planted(seed: int, *, signals: tuple[str, ...], n_queries: int = 40) -> RankingExamples:
    """Return queries whose answer has the largest values of some features, the signals."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n_queries, 10, len(FEATURES), generator=generator)
    # Four of ten candidates were taken before, and the feature for this is not random.
    features[..., FEATURES.index("own_purchases")] = (torch.arange(10) < 4).float()
    answers = torch.randint(10, (n_queries,), generator=generator)
    for name in signals:
        features[torch.arange(n_queries), answers, FEATURES.index(name)] += 6.0
    relevance = torch.nn.functional.one_hot(answers, 10).float()
    return RankingExamples(features, relevance)


def hit_rate(ranker: Ranker | TreeRanker, examples: RankingExamples) -> float:
    """Return the share of queries whose answer a ranker puts first."""
    with torch.no_grad():
        first = ranker(examples.features).argmax(dim=1)
    return float(examples.relevance[torch.arange(len(first)), first].mean())
