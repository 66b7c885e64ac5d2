"""Train, bundle, evaluate and query multimodal product recommenders.

>>> from recsys import Recommender
>>> recommender = Recommender.load("runs/shop")
>>> answer = recommender.recommend("user-17")

The names below are imported on first use, so that ``import recsys`` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recsys.answers import (
        Added,
        Annotation,
        Answer,
        Colour,
        Deleted,
        Event,
        Group,
        Guess,
        Identification,
        Item,
        ReadText,
        Reason,
        Result,
    )
    from recsys.bundle import Bundle
    from recsys.catalogue.filters import Filters
    from recsys.config import TrainConfig, load_config, load_rules
    from recsys.data.interactions import History
    from recsys.data.tables import Tables
    from recsys.errors import (
        BundleError,
        ConfigError,
        DataError,
        FileAccessError,
        InvalidArgumentError,
        InvalidImageError,
        LeakageError,
        MissingExtraError,
        MissingPartError,
        RecsysError,
        SchemaError,
        TrainingError,
        UnknownItemError,
        UnknownUserError,
    )
    from recsys.evaluation.promotion import refresh
    from recsys.evaluation.run_report import evaluate
    from recsys.identifier import ProductIdentifier
    from recsys.pipeline import train
    from recsys.ranking.requests import Request
    from recsys.recommender import Recommender
    from recsys.rules import Rules

_HOMES = {
    **dict.fromkeys(
        (
            "Added",
            "Annotation",
            "Answer",
            "Colour",
            "Deleted",
            "Event",
            "Group",
            "Guess",
            "Identification",
            "Item",
            "ReadText",
            "Reason",
            "Result",
        ),
        "recsys.answers",
    ),
    **dict.fromkeys(
        (
            "BundleError",
            "ConfigError",
            "DataError",
            "FileAccessError",
            "InvalidArgumentError",
            "InvalidImageError",
            "LeakageError",
            "MissingExtraError",
            "MissingPartError",
            "RankingError",
            "RecsysError",
            "SchemaError",
            "TrainingError",
            "UnknownItemError",
            "UnknownUserError",
        ),
        "recsys.errors",
    ),
    "Bundle": "recsys.bundle",
    "Filters": "recsys.catalogue.filters",
    "History": "recsys.data.interactions",
    "ProductIdentifier": "recsys.identifier",
    "Recommender": "recsys.recommender",
    "Request": "recsys.ranking.requests",
    "Rules": "recsys.rules",
    "Tables": "recsys.data.tables",
    "TrainConfig": "recsys.config",
    "evaluate": "recsys.evaluation.run_report",
    "load_config": "recsys.config",
    "load_rules": "recsys.config",
    "refresh": "recsys.evaluation.promotion",
    "train": "recsys.pipeline",
}

__all__ = [
    "Added",
    "Annotation",
    "Answer",
    "Bundle",
    "BundleError",
    "Colour",
    "ConfigError",
    "DataError",
    "Deleted",
    "Event",
    "FileAccessError",
    "Filters",
    "Group",
    "Guess",
    "History",
    "Identification",
    "InvalidArgumentError",
    "InvalidImageError",
    "Item",
    "LeakageError",
    "MissingExtraError",
    "MissingPartError",
    "ProductIdentifier",
    "RankingError",
    "ReadText",
    "Reason",
    "Recommender",
    "RecsysError",
    "Request",
    "Result",
    "Rules",
    "SchemaError",
    "Tables",
    "TrainConfig",
    "TrainingError",
    "UnknownItemError",
    "UnknownUserError",
    "evaluate",
    "load_config",
    "load_rules",
    "refresh",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'recsys' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
