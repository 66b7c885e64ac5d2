"""The pictures that are hardest for a tower."""

import base64
import io

import numpy as np

from vision.arrays import Floats, Ints
from vision.dataset import Samples
from vision.images import load
from vision.report.results import HardPicture

_SIDE = 128


def hardest_pictures(
    samples: Samples,
    target: str,
    rows: Ints,
    probabilities: Floats,
    *,
    limit: int = 24,
) -> tuple[HardPicture, ...]:
    """Return the pictures whose correct class has the lowest probability, lowest first.

    Args:
        samples: Pictures and labels.
        target: Target whose labels are used.
        rows: Rows of the pictures with predictions (n,).
        probabilities: Class probabilities of these pictures for the target (n, C).
        limit: Largest number of pictures returned.
    """
    known = samples.targets[target][rows] >= 0
    rows, probabilities = rows[known], probabilities[known]
    labels, predicted = samples.targets[target][rows], probabilities.argmax(axis=1)
    of_label = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    names = samples.classes[target]
    return tuple(
        HardPicture(
            image=str(samples.images[rows[position]]),
            label=names[labels[position]],
            label_probability=float(of_label[position]),
            predicted=names[predicted[position]],
            predicted_probability=float(probabilities[position, predicted[position]]),
            thumbnail=_thumbnail(samples, int(rows[position])),
        )
        for position in np.argsort(of_label, kind="stable")[:limit].tolist()
    )


def _thumbnail(samples: Samples, row: int) -> str:
    """Return a small JPEG of the picture as a data URI."""
    picture = load(samples.images[row], samples.root, min_side=_SIDE)
    picture.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
