"""Fill a catalogue from its pictures: category, attributes and colours, and how sure each is."""

from recsys.curation.annotation.pictures import annotate, fit_temperatures
from recsys.curation.annotation.table import annotate_table

__all__ = ["annotate", "annotate_table", "fit_temperatures"]
