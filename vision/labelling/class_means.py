"""Classifiers without training: what a backbone tells apart before it is fine-tuned."""

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
# An unseen class must never win; a head's bias has to be finite to be saved.
NEVER = -1e4


def with_class_means(tower: VisionTower, samples: Samples) -> VisionTower:
    """Return a copy whose classifiers know the mean features of each class, and nothing else.

    The evaluation of a pretrained backbone before fine-tuning. Each head becomes the nearest class
    mean (Mensink et al., 2013, https://doi.org/10.1109/TPAMI.2013.83) under one common variance for
    all features, which gives it probabilities; they learn a metric, which this does not.

    Args:
        tower: Its backbone is used as it is; the tower itself is left alone.
        samples: Pictures and labels of the tower's targets. Unreadable ones are left out; a class
            without any is never predicted.

    Raises:
        InvalidArgumentError: If the samples have other classes.
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
    """Make a linear layer give log-densities, up to a constant, of equally wide normal classes."""
    assert isinstance(head, nn.Linear), "a tower's heads are linear"
    known = labels != UNKNOWN
    features, labels = features[known], labels[known]
    counts = torch.bincount(labels, minlength=head.out_features)
    sums = torch.zeros(head.out_features, features.shape[1]).index_add_(0, labels, features)
    means = sums / counts.clamp(min=1)[:, None]
    variance = (features - means[labels]).square().mean().clamp(min=1e-6)
    head.weight.copy_(means / variance)
    bias = -means.square().sum(dim=1) / (2.0 * variance)
    head.bias.copy_(torch.where(counts > 0, bias, NEVER))
