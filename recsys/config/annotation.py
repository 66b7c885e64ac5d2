"""The section of a configuration that is about names of what pictures show."""

from pydantic import Field

from recsys.config.sections import Section


class AnnotationConfig(Section):
    """How the classifiers of the vision tower name what a picture shows."""

    thresholds: bool = Field(
        False,
        description="Whether each class has a threshold of its own, tuned on photos of val for "
        "macro-F1: rare classes are then named more often, and accuracy may fall.",
    )
