"""Export of a tower to ONNX, in float32 and int8."""

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vision.batches import ImageSource, prepared_batches
from vision.checkpoint import CONFIG_FILE, describe
from vision.deploy.quantise import Feed, quantise
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
        outputs = [EMBEDDINGS, *(f"{LOGITS}{target}" for target in tower.classes)]
        write_graph(_Graph(tower), tower.preprocess.size, outputs, scratch / MODEL_FILE)
        if int8_calibration is not None:
            feeds = calibration_feeds(tower, int8_calibration)
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


def calibration_feeds(tower: VisionTower, images: Sequence[ImageSource]) -> Iterator[Feed]:
    """Yield pictures as the graph of a tower reads them, to calibrate int8 with.

    Raises:
        ImageError: If a picture cannot be read. The message has its position.
    """
    batches = prepared_batches(images, tower.preprocess, batch_size=CALIBRATION_BATCH)
    return ({INPUT: batch.numpy()} for batch in batches)


def write_graph(network: nn.Module, size: int, outputs: Sequence[str], path: Path) -> None:
    """Write a network as an ONNX graph that reads ``images``, float32 (B, 3, H, W) for any B.

    Args:
        network: Network to export, which is not changed.
        size: Height and width of the pictures in pixels.
        outputs: Names of its outputs.
        path: File to write.

    Raises:
        MissingExtraError: If the extra ``onnx`` is not installed.
    """
    try:
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise MissingExtraError(
            "writing ONNX needs onnxscript: pip install 'vitrine-recsys[onnx]'"
        ) from error
    # The exporter copies the state of the network, so it must be in evaluation mode, on the CPU and
    # in the plain memory layout: channels_last would add reshapes to the graph.
    graph = copy.deepcopy(network).cpu().eval().to(memory_format=torch.contiguous_format)
    torch.onnx.export(
        graph,
        # With a batch of one picture the exporter would fix the batch size at one.
        (torch.zeros(2, 3, size, size),),
        path,
        input_names=[INPUT],
        output_names=list(outputs),
        dynamic_shapes=({0: "batch"},),
        external_data=False,
        verbose=False,
    )
