"""What a vision tower can and cannot do, measured on held-out pictures, as a page and a file."""

from vision.report.evaluate import evaluate_tower
from vision.report.page import read_report, write_report
from vision.report.target import evaluate_probabilities

__all__ = ["evaluate_probabilities", "evaluate_tower", "read_report", "write_report"]
