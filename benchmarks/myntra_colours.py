"""Compare the palette's main colour with Myntra's labels, and record how often they agree on val.

Run from the repository's root: ``python -m benchmarks.myntra_colours``. Nothing is trained; the
palette was designed on pictures of train. The labels come from the shop's staff and are mapped to
the names of the palette. Colours with fewer than 50 pictures are left out, and so is ``Multi``.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.myntra_pictures import load_myntra
from benchmarks.record import record
from recsys.evaluation.bootstrap import estimate
from vision.dataset import Samples
from vision.images import load
from vision.palette import PALETTE, name_colours

COMMAND = "python -m benchmarks.myntra_colours"
TARGET = "base_colour"
# Names in the palette for labels that the palette does not have.
MEANT = {
    "Navy Blue": "navy",
    "Silver": "grey",
    "Steel": "grey",
    "Charcoal": "grey",
    "Grey Melange": "grey",
    "Off White": "white",
    "Cream": "beige",
    "Skin": "beige",
    "Khaki": "olive",
    "Tan": "brown",
    "Bronze": "brown",
    "Copper": "brown",
    "Maroon": "burgundy",
    "Rust": "orange",
    "Mustard": "yellow",
    "Peach": "pink",
    "Magenta": "pink",
    "Lavender": "purple",
    "Teal": "turquoise",
    "Turquoise Blue": "turquoise",
}


def main() -> None:
    """Print and record accuracy on val, beside always answering train's most common colour."""
    pictures = load_myntra()
    labels, images = labelled(pictures.val)
    with ThreadPoolExecutor() as threads:
        colours = list(threads.map(read, images))
    commonest = np.unique(labelled(pictures.train)[0], return_counts=True)
    majority = commonest[0][commonest[1].argmax()]
    figures = {
        "palette.accuracy": [
            one[:1] == [label] for one, label in zip(colours, labels, strict=True)
        ],
        "palette.top2": [label in one[:2] for one, label in zip(colours, labels, strict=True)],
        "majority.accuracy": [label == majority for label in labels],
    }
    print(f"{len(labels)} val pictures, {len(set(labels))} colours, most common {majority}")
    for name, right in figures.items():
        measured = estimate(np.array(right, dtype=np.float64))
        print(name, measured)
        record("myntra", f"myntra.colour.{name}", measured.mean, "accuracy", COMMAND)


def labelled(samples: Samples) -> tuple[list[str], list[Path]]:
    """Return the pictures whose label has a name in the palette, with that name."""
    known = [MEANT.get(name, name.lower()) for name in samples.classes[TARGET]]
    pairs = [
        (known[code], Path(image))
        for code, image in zip(samples.targets[TARGET], samples.images, strict=True)
        if code >= 0 and known[code] in PALETTE
    ]
    labels, images = zip(*pairs, strict=True)
    return list(labels), list(images)


def read(image: Path) -> list[str]:
    """Return the names of a picture's colours, the one with the largest share first."""
    return [one.colour for one in name_colours(load(image), min_share=0.0)]


if __name__ == "__main__":
    main()
