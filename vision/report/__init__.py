"""Reports of what a vision tower can and cannot do, as a page and a JSON file."""

from vision.report.evaluate import EvaluationOptions, evaluate_tower
from vision.report.page import read_report, write_report
from vision.report.target import evaluate_probabilities

__all__ = [
    "EvaluationOptions",
    "evaluate_probabilities",
    "evaluate_tower",
    "read_report",
    "write_report",
]
