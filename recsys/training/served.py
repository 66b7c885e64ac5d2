"""The stage "serving": the vision tower as graphs for a CPU, and how near their answers are."""

import json
import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from recsys.catalogue.served_tower import ServedTower
from recsys.config import ServingConfig
from recsys.errors import ConfigError, MissingExtraError
from recsys.training.inputs import ShopData
from recsys.training.stages import Runtime
from recsys.training.towers import TrainedTowers
from vision.deploy.quantise import saturates
from vision.deploy.served import measure_parity, serve_backbone, write_backbone
from vision.tower import VisionTower

logger = logging.getLogger(__name__)

PARITY = "parity.json"
GRAPHS = "graphs"
CALIBRATED_ON = 200  # pictures; enough to know the range of every activation
COMPARED_ON = 500


def check_serving(config: ServingConfig, capabilities: Mapping[str, Any] | None = None) -> None:
    """Raise before a training whose tower this machine could not write and measure.

    Args:
        config: What is wanted.
        capabilities: Instruction sets of the processor. None is this one's.

    Raises:
        MissingExtraError: If graphs are wanted and the extra ``onnx`` is not installed.
        ConfigError: If int8 is wanted and this processor cannot run it exactly, so that its parity
            could not be measured.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if config.tower != "torch" and missing:
        raise MissingExtraError(
            f"[serving] tower = {config.tower!r} needs {', '.join(missing)}: "
            "pip install 'vitrine-recsys[onnx]'"
        )
    if config.tower == "int8" and saturates({}, capabilities or torch.cpu.get_capabilities()):
        raise ConfigError(
            '[serving] tower = "int8" must be trained on a processor that adds it exactly, got one '
            'with AVX2 and without VNNI; set "onnx", or train on another machine'
        )


def write_served(
    shop: ShopData, towers: TrainedTowers, config: ServingConfig, runtime: Runtime
) -> ServedTower | None:
    """Return the graphs of the stage "serving"; None if torch serves or there is no tower."""
    tower = towers.vision
    if tower is None or config.tower == "torch":
        return None
    stage = runtime.workspace.run(
        "serving",
        {"towers": towers.keys, "tower": config.tower, "pictures": shop.vision_key},
        lambda folder: _write(tower, shop, folder, int8=config.tower == "int8"),
    )
    parity = json.loads((stage.folder / PARITY).read_text())
    served = ServedTower(stage.folder / GRAPHS, config.tower, parity)
    logger.info("%s", served.sentence())
    return served


def _write(tower: VisionTower, shop: ShopData, folder: Path, *, int8: bool) -> None:
    """Write the graphs, and compare them with the tower on pictures that calibrated nothing."""
    learned, held_out = shop.pictures.train.images, shop.pictures.validation
    calibration = _spread(learned, CALIBRATED_ON)
    others = sorted({*learned} - {*calibration}) or learned
    if held_out is not None:
        others = held_out.images
    write_backbone(tower, folder / GRAPHS, int8_calibration=calibration if int8 else None)
    served = serve_backbone(tower, folder / GRAPHS, int8=int8)
    parity = measure_parity(tower, served, _spread(others, COMPARED_ON))
    (folder / PARITY).write_text(json.dumps(parity._asdict()))


def _spread(images: Sequence[Path], count: int) -> list[Path]:
    """Return about so many of the pictures, spread evenly over them."""
    return list(images[:: max(1, len(images) // count)])
