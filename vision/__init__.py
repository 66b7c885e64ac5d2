"""Vision tower: pictures in, embeddings out.

``vision.finetuning.finetune`` trains a tower, ``vision.checkpoint`` saves and loads it. The names
below are imported on first use, so that ``import vision`` takes no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vision.config import VisionConfig
    from vision.dataset import Samples
    from vision.tower import VisionTower

_HOMES = {
    "Samples": "vision.dataset",
    "VisionConfig": "vision.config",
    "VisionTower": "vision.tower",
}

__all__ = ["Samples", "VisionConfig", "VisionTower"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vision' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
