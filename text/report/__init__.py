"""Measure a text tower on a catalogue, and write the result as a page and a JSON file."""

from text.report.evaluate import evaluate_encoder
from text.report.page import read_report, write_report

__all__ = ["evaluate_encoder", "read_report", "write_report"]
