"""Annotate pictures with category, attributes and colours, and their probabilities."""

from recsys.curation.annotation.pictures import annotate, fit_temperatures
from recsys.curation.annotation.table import AnnotateOptions, annotate_table
from recsys.curation.annotation.words import annotate_words, read_words

__all__ = [
    "AnnotateOptions",
    "annotate",
    "annotate_table",
    "annotate_words",
    "fit_temperatures",
    "read_words",
]
