"""Count how often a picture is decoded or a function is called while something runs."""

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from PIL import ImageFile


def count_decodes(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """Return a counter, by the content of the file, of every image that Pillow decodes from now on.

    Opening an image reads its header and is not counted.
    """
    counts: Counter[bytes] = Counter()
    load = ImageFile.ImageFile.load

    def counted(image: ImageFile.ImageFile) -> Any:
        # Pillow calls this before it uses the pixels, however often; the first call decodes.
        if not hasattr(image, "counted"):
            image.counted = True  # type: ignore[attr-defined]
            counts[image.fp.getvalue()] += 1  # type: ignore[union-attr]
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", counted)
    return counts


def count_calls(monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any]) -> list[str]:
    """Return a list that grows with each call of a function, whichever module calls it."""
    calls: list[str] = []

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(function.__name__)
        return function(*arguments, **options)

    for module in [*sys.modules.values()]:
        if getattr(module, function.__name__, None) is function:
            monkeypatch.setattr(module, function.__name__, counted)
    return calls
