"""Self-training: towers label pictures that nobody has labelled, and one more learns from all."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from vision.config import PseudoLabelConfig
from vision.dataset import Samples
from vision.labelling.pseudo_labels import combine, pseudo_label

if TYPE_CHECKING:
    from vision.finetuning import FinetuneResult

logger = logging.getLogger(__name__)

LOSS = "loss"  # among the validation metrics


def self_train(
    train: "Callable[[Samples, str, int], FinetuneResult]",
    samples: Samples,
    config: PseudoLabelConfig,
    *,
    seed: int,
) -> "FinetuneResult":
    """Return the best of several towers, or a tower that learned from what all of them say.

    The towers learn from the labelled pictures with different seeds. The unlabelled pictures of
    which the mean of their probabilities is confident become training pictures for one more tower,
    so an ensemble of any size becomes one network: the noisy student of Xie et al. (2020,
    https://arxiv.org/abs/1911.04252) with hard labels, one round and the same network. It is
    returned unless the validation loss of the best of the others is lower. Without validation
    pictures it is returned in any case.

    Args:
        train: Function of samples, the name of the run and its seed that returns a tower.
        samples: Labelled pictures, with unlabelled ones.
        config: Number of towers, and how confident they must be.
        seed: Random seed of the first tower; each of the others adds one.

    Raises:
        VisionError: If a training fails.
    """
    towers = [train(samples, f"member-{n}", seed + n) for n in range(config.members)]
    best = min(towers, key=lambda one: one.metrics.get(LOSS, 0.0))
    found = pseudo_label(
        [one.tower for one in towers],
        samples.unlabelled,
        target=[*samples.classes][-1],
        confidence=config.confidence,
        per_class=config.per_class,
        root=samples.root,
    )
    share = f"{len(found.samples)} of {len(samples.unlabelled)} unlabelled pictures"
    if not len(found.samples):
        logger.warning(
            "pseudo_labels: %s got a label; lower confidence, which is %s", share, config.confidence
        )
        return best
    student = train(combine(samples, found.samples), "student", seed)
    helped = student.metrics.get(LOSS, 0.0) <= best.metrics.get(LOSS, 0.0)
    logger.log(
        logging.INFO if helped else logging.WARNING,
        "pseudo_labels: %s got a label; validation loss %s with them, %s without: they are %s",
        share,
        student.metrics.get(LOSS),
        best.metrics.get(LOSS),
        "kept" if helped else "left out",
    )
    kept = student if helped else best
    return kept._replace(rejected=(*kept.rejected, *found.rejected))
