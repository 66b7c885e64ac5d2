"""ONNX Runtime on the CPU, opened the same way for every graph."""

from pathlib import Path
from typing import Any

import torch

from vision.errors import CheckpointError, MissingExtraError


def open_session(path: Path, threads: int | None = None) -> Any:
    """Return the inference session of a graph.

    Args:
        path: File of the graph.
        threads: Number of threads of one pass. None uses as many as torch.

    Raises:
        MissingExtraError: If the extra ``onnx`` is not installed.
        CheckpointError: If the file does not hold a graph that can be run.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            "running ONNX needs onnxruntime: pip install 'vitrine-recsys[onnx]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    # By default its threads wait for the next pass in a busy loop, which blocks the cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    # The errors of onnxruntime have no common base class below Exception.
    except Exception as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
