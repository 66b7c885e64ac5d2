"""What a text tower can and cannot do, measured on a catalogue, as a page and a file."""

from text.report.evaluate import evaluate_encoder
from text.report.page import read_report, write_report

__all__ = ["evaluate_encoder", "read_report", "write_report"]
