"""Where heads start from: the best ones for the features that the backbone has already."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vision.dataset import UNKNOWN, PictureSet
from vision.tower import VisionTower
from vision.training.learner import Learner
from vision.transforms import normalise

BATCH_SIZE = 64
MOST_PICTURES = 10_000  # enough for linear classifiers, and a pass over more takes long
# Strength of the penalty on a classifier's weights, for features whose mean norm is FEATURE_NORM.
# A weaker one is as accurate, but then no loss is left on the training pictures to learn from.
PENALTY = 3e-2
FEATURE_NORM = 30.0
STEPS = 100


def fit_heads(learner: Learner, pictures: PictureSet) -> None:
    """Fit the heads of a tower, and its projection, to the features that the backbone has.

    From random heads, the first steps of fine-tuning distort good features. Linear probing and then
    fine-tuning (Kumar et al., 2022, https://arxiv.org/abs/2202.10054) avoids this. Here the heads
    minimise their own loss of training by L-BFGS, with a penalty. The projection keeps the
    principal components of the features, and each proxy becomes the mean of its class.

    Args:
        learner: Learner whose tower is on the device to compute on; its backbone is not changed.
        pictures: Pictures to train on, read without augmentation; of very many, some are drawn.
    """
    tower = learner.tower
    with torch.no_grad():
        features, targets = _read_features(tower, pictures, learner.seed)
    scale = FEATURE_NORM / features.norm(dim=1).mean().clamp(min=1e-6)
    losses = learner.objective.to(tower.device).losses
    for column, (head, loss) in enumerate(zip(tower.heads, losses, strict=True)):
        assert isinstance(head, nn.Linear), "the heads of a tower are linear"
        _fit_head(head, loss, features * scale, targets[:, column])
        head.weight.data.mul_(scale)
    with torch.no_grad():
        embeddings = _start_projection(tower, features)
        for column, proxies in enumerate(learner.proxies.to(tower.device)):
            _take_means(proxies, embeddings, targets[:, column])


def _read_features(tower: VisionTower, pictures: PictureSet, seed: int) -> tuple[Tensor, Tensor]:
    """Return features (n, F) of the pictures, and their labels (n, T)."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(pictures), generator=generator)[:MOST_PICTURES].sort().values
    side = tower.preprocess.size
    tower.eval()
    features, targets = [], []
    for positions in chosen.split(BATCH_SIZE):
        batch = pictures.__getitems__(positions.tolist())
        images = normalise(batch.pictures.to(tower.device), tower.preprocess)
        sized = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
        read = tower.backbone(sized.contiguous(memory_format=torch.channels_last))
        features.append(read.float())
        targets.append(batch.targets.to(tower.device))
    tower.train()
    return torch.cat(features), torch.cat(targets)


def _fit_head(head: nn.Linear, loss: nn.Module, features: Tensor, labels: Tensor) -> None:
    """Minimise the loss of a head in place; where no label is known the head is left as it is."""
    if not (labels != UNKNOWN).any():
        return
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value: Tensor = loss(head(features), labels) + PENALTY / 2 * head.weight.square().sum()
        value.backward()
        return value

    optimizer.step(closure)
    head.zero_grad()


def _start_projection(tower: VisionTower, features: Tensor) -> Tensor:
    """Return unit-length embeddings (n, D), after the projection has taken the features' axes.

    A checkpoint's own projection, whose norm has no momentum, is kept.
    """
    linear, norm = tower.project
    assert isinstance(linear, nn.Linear)
    assert isinstance(norm, nn.BatchNorm1d)
    if norm.momentum:
        centred = features - features.mean(dim=0)
        axes = torch.linalg.svd(centred, full_matrices=False).Vh[: tower.dim]  # (d, F)
        # The norm gives every dimension one variance. Turned at random, all have the same already,
        # so that the components keep their weights.
        turned = nn.init.orthogonal_(torch.empty(tower.dim, len(axes)))
        linear.weight.copy_(turned.to(axes) @ axes)
        projected = linear(features)
        norm.running_mean = projected.mean(dim=0)
        norm.running_var = projected.var(dim=0)
    embeddings = F.normalize(norm.eval()(linear(features)), dim=1)
    norm.train()
    return embeddings


def _take_means(proxies: Tensor, embeddings: Tensor, labels: Tensor) -> None:
    """Set each proxy (C, D) to the mean embedding of its class; one without pictures stays."""
    known = labels != UNKNOWN
    sums = torch.zeros_like(proxies).index_add_(0, labels[known], embeddings[known])
    seen = torch.bincount(labels[known], minlength=len(proxies)) > 0
    proxies[seen] = F.normalize(sums[seen], dim=1)
