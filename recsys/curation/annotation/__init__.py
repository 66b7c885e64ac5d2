"""Annotate pictures with category, attributes and colours, and their probabilities."""

from recsys.curation.annotation.pictures import annotate, fit_temperatures
from recsys.curation.annotation.table import AnnotateOptions, annotate_table

__all__ = ["AnnotateOptions", "annotate", "annotate_table", "fit_temperatures"]
