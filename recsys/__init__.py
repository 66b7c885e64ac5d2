"""Train, bundle, evaluate and query multimodal product recommenders.

The names below are opened on first use, so that ``import recsys`` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recsys.bundle import Bundle
    from recsys.identifier import ProductIdentifier
    from recsys.recommender import Recommender

_HOMES = {
    "Bundle": "recsys.bundle",
    "ProductIdentifier": "recsys.identifier",
    "Recommender": "recsys.recommender",
}

__all__ = ["Bundle", "ProductIdentifier", "Recommender"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'recsys' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
