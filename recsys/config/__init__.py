"""The training configuration: one TOML file, all of its problems reported at once."""

from recsys.config.annotation import AnnotationConfig
from recsys.config.loading import (
    TrainConfig,
    load_config,
    load_rules,
    read_rules,
    write_config,
    write_rules,
)
from recsys.config.ranking import OffersConfig, RankerConfig, TreesConfig, UserConfig
from recsys.config.sections import (
    AlignmentConfig,
    DataConfig,
    EvaluationConfig,
    FusionConfig,
    IdentificationConfig,
    Kind,
    ServingConfig,
    SplitConfig,
)

__all__ = [
    "AlignmentConfig",
    "AnnotationConfig",
    "DataConfig",
    "EvaluationConfig",
    "FusionConfig",
    "IdentificationConfig",
    "Kind",
    "OffersConfig",
    "RankerConfig",
    "ServingConfig",
    "SplitConfig",
    "TrainConfig",
    "TreesConfig",
    "UserConfig",
    "load_config",
    "load_rules",
    "read_rules",
    "write_config",
    "write_rules",
]
