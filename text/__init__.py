"""Text tower: titles in, embeddings out.

``text.finetuning.finetune`` trains an encoder, ``text.checkpoint`` saves and loads it, and
``text.report`` measures what it knows. The names below are imported on first use, so that
``import text`` is fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from text.config import TextConfig
    from text.dataset import Samples
    from text.encoder import TextEncoder

_HOMES = {
    "Samples": "text.dataset",
    "TextConfig": "text.config",
    "TextEncoder": "text.encoder",
}

__all__ = ["Samples", "TextConfig", "TextEncoder"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'text' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
