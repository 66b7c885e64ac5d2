"""Metric losses, which train the embedding on classes or on pairs of pictures."""

from collections.abc import Callable, Iterable, Mapping

import torch
from pytorch_metric_learning import losses, miners
from pytorch_metric_learning.utils.loss_and_miner_utils import (
    get_all_pairs_indices,
    get_all_triplets_indices,
)
from torch import Tensor, nn

from vision.config import ObjectiveConfig
from vision.dataset import UNKNOWN
from vision.errors import InvalidArgumentError

# As in the paper that introduced semi-hard triplets; the library's default is 0.05.
TRIPLET_MARGIN = 0.2

# Both learn one direction for each class; called with the number of classes and the embedding size.
PROXY_LOSSES: dict[str, Callable[[int, int], nn.Module]] = {
    "arcface": losses.ArcFaceLoss,
    "proxy_anchor": losses.ProxyAnchorLoss,
}
PAIR_LOSSES: dict[str, Callable[[], nn.Module]] = {
    "supcon": losses.SupConLoss,
    "multi_similarity": losses.MultiSimilarityLoss,
    "triplet": lambda: losses.TripletMarginLoss(margin=TRIPLET_MARGIN),
}
MINED = ("multi_similarity", "triplet")
MINERS: dict[str, Callable[[], nn.Module]] = {
    "multi_similarity": miners.MultiSimilarityMiner,
    "semihard": lambda: miners.TripletMarginMiner(TRIPLET_MARGIN, type_of_triplets="semihard"),
    "hard": miners.BatchHardMiner,
}

# Triplets as (anchors, positives, negatives), pairs as (anchors, positives, anchors, negatives).
Indices = tuple[Tensor, ...]


class EmbeddingMemory(nn.Module):
    """The latest embeddings and their labels, for comparison with those of a batch.

    Cross-batch memory of Wang et al. (2020, https://arxiv.org/abs/1912.06798), without their wait
    until the network has settled. It is kept as extra state, so that a resumed run finds it, rather
    than in buffers, which an average of the weights would average as well.

    Args:
        size: Maximum number of embeddings to keep.
        dim: Embedding size D.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.size = size
        # From the oldest to the latest, (n, D) and (n,), on the device of the last batch.
        self.embeddings = torch.zeros(0, dim)
        self.labels = torch.zeros(0, dtype=torch.int64)

    def beside(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return a batch's embeddings (B, D) and labels (B,), followed by those remembered."""
        return (
            torch.cat([embeddings, self.embeddings.to(embeddings.device)]),
            torch.cat([labels, self.labels.to(labels.device)]),
        )

    def remember(self, embeddings: Tensor, labels: Tensor) -> None:
        """Add embeddings (B, D) with known labels (B,), and drop the oldest beyond the size."""
        self.embeddings = self._latest(self.embeddings, embeddings.detach())
        self.labels = self._latest(self.labels, labels)

    def _latest(self, remembered: Tensor, new: Tensor) -> Tensor:
        # Without the clone, a checkpoint would hold the whole tensor that this is a view of.
        return torch.cat([remembered.to(new.device), new])[-self.size :].clone()

    def get_extra_state(self) -> dict[str, Tensor]:
        """Return the embeddings and labels, for the module's state dict."""
        return {"embeddings": self.embeddings, "labels": self.labels}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Restore the embeddings and labels of a state dict."""
        self.embeddings, self.labels = state["embeddings"], state["labels"]


class MetricObjective(nn.Module):
    """The weighted sum of metric losses over the embeddings of a batch.

    Args:
        losses: Loss modules by their names in ``ObjectiveConfig.metric``.
        weights: Weights of the losses by the same names.
        miner: Choice of the pairs for multi_similarity and triplet; None takes all pairs.
        memory: Earlier embeddings to pair those of a batch with; None pairs within the batch.
    """

    def __init__(
        self,
        losses: Mapping[str, nn.Module],
        weights: Mapping[str, float],
        *,
        miner: nn.Module | None,
        memory: EmbeddingMemory | None,
    ) -> None:
        super().__init__()
        self.losses, self.weights = nn.ModuleDict(losses), dict(weights)
        self.miner, self.memory = miner, memory

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the weighted sum of the losses, a scalar; 0 if there is nothing to compare.

        In training, the batch is added to the memory afterwards.

        Args:
            embeddings: Unit-length embeddings (B, D).
            labels: Class indices, int64 (B,); pictures with an unknown label, -1, are left out.

        Raises:
            InvalidArgumentError: If the shapes disagree.
        """
        if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
            raise InvalidArgumentError(
                f"embeddings and labels must have shapes (B, D) and (B,), "
                f"got {tuple(embeddings.shape)} and {tuple(labels.shape)}"
            )
        # Processes that train together wait for a gradient of every parameter at every step.
        total = 0.0 * sum((own.sum() for own in self.parameters()), embeddings.sum())
        known = labels != UNKNOWN
        embeddings, labels = embeddings[known].float(), labels[known]
        if len(labels) == 0:
            return total
        # Distances between near neighbours are too small for the precision of bfloat16.
        with torch.autocast(embeddings.device.type, enabled=False):
            for name, loss in self._losses(embeddings, labels).items():
                total = total + self.weights[name] * loss
        if self.memory is not None and self.training:
            self.memory.remember(embeddings, labels)
        return total

    def _losses(self, embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
        others: tuple[Tensor, Tensor] = (embeddings, labels)
        if self.memory is not None:
            others = self.memory.beside(embeddings, labels)
        mined = None if self.miner is None else self.miner(embeddings, labels, *others)
        computed = {}
        for name, loss in self.losses.items():
            if name in PROXY_LOSSES:
                computed[name] = loss(embeddings, labels)
                continue
            if name in MINED and mined is not None:
                indices: Indices = mined
            elif name == "triplet":
                indices = get_all_triplets_indices(labels, others[1])
            else:
                indices = get_all_pairs_indices(labels, others[1])
            computed[name] = loss(embeddings, labels, _without_self(indices), *others)
        return computed


def _without_self(indices: Indices) -> Indices:
    """Drop the pairs of a picture with itself, which has the same index among the others."""
    anchors, positives, *negatives = indices
    keep = anchors != positives
    if len(negatives) == 1:  # triplets
        return anchors[keep], positives[keep], negatives[0][keep]
    return anchors[keep], positives[keep], *negatives


def build_metric_objective(
    config: ObjectiveConfig, *, n_classes: int, dim: int
) -> MetricObjective | None:
    """Return the metric losses that a configuration names, or None if it names no loss.

    Losses of pytorch-metric-learning with its defaults, except for the triplets' margin: ArcFace
    (Deng et al., 2019, https://arxiv.org/abs/1801.07698), Proxy-Anchor (Kim et al., 2020,
    https://arxiv.org/abs/2003.13911), SupCon (Khosla et al., 2020,
    https://arxiv.org/abs/2004.11362) on embeddings instead of a second projection, Multi-Similarity
    (Wang et al., 2019, https://arxiv.org/abs/1904.06627) and triplets (Schroff et al., 2015,
    https://arxiv.org/abs/1503.03832). Triplets take working memory that grows with the square of
    the number of remembered embeddings, unless the miner is ``hard``.

    Args:
        config: Losses with their weights, miner and size of the memory.
        n_classes: Number of classes C of the target to separate.
        dim: Embedding size D.

    Raises:
        InvalidArgumentError: If a miner or a memory is configured that no loss would use.
    """
    if config.miner != "none" and not set(config.metric) & set(MINED):
        raise InvalidArgumentError(_unused("miner", config.miner, MINED, config))
    if config.memory and not set(config.metric) & set(PAIR_LOSSES):
        raise InvalidArgumentError(_unused("memory", config.memory, PAIR_LOSSES, config))
    if not config.metric:
        return None
    chosen: dict[str, nn.Module] = {
        name: PROXY_LOSSES[name](n_classes, dim) if name in PROXY_LOSSES else PAIR_LOSSES[name]()
        for name in config.metric
    }
    return MetricObjective(
        chosen,
        dict(config.metric.items()),
        miner=None if config.miner == "none" else MINERS[config.miner](),
        memory=EmbeddingMemory(config.memory, dim) if config.memory else None,
    )


def _unused(field: str, value: str | int, users: Iterable[str], config: ObjectiveConfig) -> str:
    named = ", ".join(config.metric) or "none"
    return (
        f"objective.{field} = {value!r} needs one of {', '.join(users)} in objective.metric, "
        f"got {named}; name one or leave {field} out"
    )
