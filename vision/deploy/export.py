"""A tower as ONNX, which runs without torch: in float32, and in int8."""

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vision.batches import ImageSource, prepared_batches
from vision.checkpoint import CONFIG_FILE, describe
from vision.deploy.quantise import quantise
from vision.errors import InvalidArgumentError, MissingExtraError
from vision.tower import VisionTower

MODEL_FILE = "model.onnx"
INT8_FILE = "model.int8.onnx"
INPUT = "images"
EMBEDDINGS = "embeddings"
LOGITS = "logits/"  # and the target's name
CALIBRATION_BATCH = 16


def export_onnx(
    tower: VisionTower,
    folder: str | Path,
    *,
    int8_calibration: Sequence[ImageSource] | None = None,
) -> None:
    """Write the tower as ``model.onnx`` and ``config.json`` into a folder, made if not there.

    The graph reads ``images``, float32 (B, 3, H, W) for any B, prepared as ``config.json`` says,
    and gives ``embeddings`` (B, D), unit length, and ``logits/TARGET`` (B, C) for every target.
    ``vision.deploy.onnx_tower.OnnxTower`` runs it. The folder may be that of the saved tower.

    Args:
        tower: What is written; a factorised one, too.
        folder: Where to.
        int8_calibration: Pictures such as the tower will see, 50 or more; with them it is written
            as ``model.int8.onnx`` as well, a quarter the size, faster and a little less exact.

    Raises:
        MissingExtraError: If the extra ``onnx`` is not installed.
        InvalidArgumentError: If there is no calibration picture.
        ImageError: If a calibration picture cannot be read; names its position.
    """
    if int8_calibration is not None and not int8_calibration:
        raise InvalidArgumentError(
            "int8_calibration must have at least 1 picture, got none; None skips int8"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # That of an earlier export would answer for another tower.
    (folder / INT8_FILE).unlink(missing_ok=True)
    _write_graph(tower, folder / MODEL_FILE)
    config = describe(tower).model_dump_json(indent=2)
    (folder / CONFIG_FILE).write_text(config + "\n", encoding="utf-8")
    if int8_calibration is not None:
        batches = prepared_batches(int8_calibration, tower.preprocess, batch_size=CALIBRATION_BATCH)
        feeds = ({INPUT: batch.numpy()} for batch in batches)
        quantise(folder / MODEL_FILE, folder / INT8_FILE, feeds)


class _Graph(nn.Module):
    """The tower with its outputs in a flat tuple."""

    def __init__(self, tower: VisionTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        output = self.tower.outputs(images)
        return output.embeddings, *output.logits.values()


def _write_graph(tower: VisionTower, path: Path) -> None:
    try:
        import onnxscript  # noqa: F401  (what torch's exporter is written with)
    except ImportError as error:
        raise MissingExtraError(
            "writing ONNX needs onnxscript: pip install 'vitrine-recsys[onnx]'"
        ) from error
    # Written as it is found: in evaluation mode, on the CPU, and in the plain layout, without which
    # the reshapes of channels_last would be written, too.
    graph = _Graph(copy.deepcopy(tower).cpu()).eval().to(memory_format=torch.contiguous_format)
    side = tower.preprocess.size
    torch.onnx.export(
        graph,
        # Of one picture the exporter would conclude that there is always one.
        (torch.zeros(2, 3, side, side),),
        path,
        input_names=[INPUT],
        output_names=[EMBEDDINGS, *(f"{LOGITS}{target}" for target in tower.classes)],
        dynamic_shapes={"images": {0: "batch"}},
        external_data=False,
        verbose=False,
    )
