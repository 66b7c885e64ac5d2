"""Export of a tower to ONNX, in float32 and int8."""

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vision.batches import ImageSource, prepared_batches
from vision.checkpoint import CONFIG_FILE, describe
from vision.deploy.quantise import quantise
from vision.errors import InvalidArgumentError, MissingExtraError
from vision.files import whole_files
from vision.tower import VisionTower

MODEL_FILE = "model.onnx"
INT8_FILE = "model.int8.onnx"
INPUT = "images"
EMBEDDINGS = "embeddings"
LOGITS = "logits/"  # prefix of the target's name
CALIBRATION_BATCH = 16


def export_onnx(
    tower: VisionTower,
    folder: str | Path,
    *,
    int8_calibration: Sequence[ImageSource] | None = None,
) -> None:
    """Write the tower as ``model.onnx`` and ``config.json`` into a folder.

    The graph reads ``images``, float32 (B, 3, H, W) for any B, prepared as in ``config.json``. It
    returns unit-length ``embeddings`` (B, D) and ``logits/TARGET`` (B, C) for every target.
    ``vision.deploy.onnx_tower.OnnxTower`` runs it.

    Args:
        tower: Tower to export. It may be factorised, and is not changed.
        folder: Folder for the files, which is created if missing. It may be that of the saved
            tower.
        int8_calibration: Pictures like those that the tower will read, 50 or more. They are used to
            write ``model.int8.onnx`` as well, which has a quarter of the size, is faster and
            slightly less exact. None leaves it out.

    Raises:
        MissingExtraError: If the extra ``onnx`` is not installed.
        InvalidArgumentError: If the calibration pictures are an empty list.
        ImageError: If a calibration picture cannot be read. The message has its position.
        FileAccessError: If a file cannot be written.
    """
    if int8_calibration is not None and not int8_calibration:
        raise InvalidArgumentError(
            "int8_calibration must have at least 1 picture, got none; None skips int8"
        )
    folder = Path(folder)
    config = describe(tower).model_dump_json(indent=2)
    with whole_files(folder, last=CONFIG_FILE) as scratch:
        _write_graph(tower, scratch / MODEL_FILE)
        if int8_calibration is not None:
            batches = prepared_batches(
                int8_calibration, tower.preprocess, batch_size=CALIBRATION_BATCH
            )
            feeds = ({INPUT: batch.numpy()} for batch in batches)
            quantise(scratch / MODEL_FILE, scratch / INT8_FILE, feeds)
        (scratch / CONFIG_FILE).write_text(config + "\n", encoding="utf-8")
        # An int8 file of an earlier export would belong to another tower.
        (folder / INT8_FILE).unlink(missing_ok=True)


class _Graph(nn.Module):
    """The tower with its outputs as a flat tuple."""

    def __init__(self, tower: VisionTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        output = self.tower.outputs(images)
        return output.embeddings, *output.logits.values()


def _write_graph(tower: VisionTower, path: Path) -> None:
    try:
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise MissingExtraError(
            "writing ONNX needs onnxscript: pip install 'vitrine-recsys[onnx]'"
        ) from error
    # The exporter copies the state of the network, so it must be in evaluation mode, on the CPU and
    # in the plain memory layout: channels_last would add reshapes to the graph.
    graph = _Graph(copy.deepcopy(tower).cpu()).eval().to(memory_format=torch.contiguous_format)
    side = tower.preprocess.size
    torch.onnx.export(
        graph,
        # With a batch of one picture the exporter would fix the batch size at one.
        (torch.zeros(2, 3, side, side),),
        path,
        input_names=[INPUT],
        output_names=[EMBEDDINGS, *(f"{LOGITS}{target}" for target in tower.classes)],
        dynamic_shapes={"images": {0: "batch"}},
        external_data=False,
        verbose=False,
    )
