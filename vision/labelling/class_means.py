"""Classifiers without training, which show what a backbone can do before fine-tuning."""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from vision.batches import prepared_batches
from vision.dataset import UNKNOWN, Samples
from vision.errors import InvalidArgumentError
from vision.labelling.readable import Readable
from vision.tower import VisionTower

BATCH_SIZE = 64
# Bias of a class without pictures, which is never predicted. It must be finite to be saved.
UNSEEN_BIAS = -1e4


def with_class_means(tower: VisionTower, samples: Samples) -> VisionTower:
    """Return a copy of the tower whose classifiers predict the nearest class mean.

    This evaluates a pretrained backbone before fine-tuning. Each head becomes a nearest class mean
    classifier (Mensink et al., 2013, https://doi.org/10.1109/TPAMI.2013.83). It has probabilities,
    because all features share one variance. The paper also learns a metric, which is left out here.

    Args:
        tower: Tower whose backbone computes the features. It is not changed.
        samples: Pictures and labels of the tower's targets. Unreadable pictures are left out, and a
            class without pictures is never predicted.

    Raises:
        InvalidArgumentError: If the classes of samples and tower differ.
    """
    if {name: tuple(names) for name, names in samples.classes.items()} != tower.classes:
        raise InvalidArgumentError("samples must have the targets and classes of the tower")
    result = copy.deepcopy(tower).eval()
    pictures = Readable(samples.images, samples.root, tower.preprocess)
    batches = prepared_batches(pictures, tower.preprocess, batch_size=BATCH_SIZE)
    with torch.inference_mode():
        features = torch.cat([result.backbone(images.to(tower.device)) for images in batches])
    for name, head in zip(result.classes, result.heads, strict=True):
        labels = torch.from_numpy(np.asarray(samples.targets[name])[pictures.rows])
        _set_head(head, features.float().cpu(), labels)
    return result


@torch.no_grad()
def _set_head(head: nn.Module, features: Tensor, labels: Tensor) -> None:
    """Make a linear layer return log-densities, up to a constant, of normal classes.

    All classes have the same variance in every direction.
    """
    assert isinstance(head, nn.Linear), "the heads of a tower are linear"
    known = labels != UNKNOWN
    features, labels = features[known], labels[known]
    counts = torch.bincount(labels, minlength=head.out_features)
    sums = torch.zeros(head.out_features, features.shape[1]).index_add_(0, labels, features)
    means = sums / counts.clamp(min=1)[:, None]
    variance = (features - means[labels]).square().mean().clamp(min=1e-6)
    head.weight.copy_(means / variance)
    bias = -means.square().sum(dim=1) / (2.0 * variance)
    head.bias.copy_(torch.where(counts > 0, bias, UNSEEN_BIAS))
