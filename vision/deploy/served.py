"""A tower whose backbone runs as an ONNX graph: the same answers, several times faster on a CPU."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from vision.batches import ImageSource, prepared_batches
from vision.deploy.export import INPUT, calibration_feeds, write_graph
from vision.deploy.quantise import MAX_BITS, WEIGHT_BITS, quantise, saturates
from vision.deploy.session import open_session
from vision.errors import InvalidArgumentError
from vision.files import whole_files
from vision.networks.backbones import Backbone
from vision.tower import VisionTower

logger = logging.getLogger(__name__)

GRAPH_FILE = "backbone.onnx"
INT8_FILE = "backbone.int8.onnx"
FEATURES = "features"
PICTURES_AT_ONCE = 64


class OnnxBackbone(nn.Module):
    """The features of a backbone, float32 (B, F), from its graph. It cannot be trained.

    Args:
        session: Inference session of a graph that ``write_backbone`` wrote.
    """

    def __init__(self, session: Any) -> None:
        super().__init__()
        self._session = session

    def forward(self, images: Tensor) -> Tensor:
        """Return the features (B, F) of prepared pictures (B, 3, H, W)."""
        pixels = images.float().cpu().contiguous().numpy()
        (features,) = self._session.run([FEATURES], {INPUT: pixels})
        return torch.from_numpy(features).to(images.device)


class Parity(NamedTuple):
    """How near the answers of a tower with another backbone are to its own.

    Args:
        n_pictures: Number of pictures that were compared.
        cosine: Mean cosine of the two embeddings of a picture.
        lowest_cosine: Lowest of these cosines.
        same_class: Share of the pictures whose most probable class is the same, by target.
    """

    n_pictures: int
    cosine: float
    lowest_cosine: float
    same_class: Mapping[str, float]


def write_backbone(
    tower: VisionTower,
    folder: Path,
    *,
    int8_calibration: Sequence[ImageSource] | None = None,
) -> None:
    """Write the backbone of a tower as ``backbone.onnx``, and as int8 too if there are pictures.

    The int8 graph has weights of 8 bits, which is more exact than the 7 of ``export_onnx``, but not
    for every processor. The float32 graph stands beside it for the others.

    Args:
        tower: Tower, which is not changed.
        folder: Folder for the files, which is created if missing.
        int8_calibration: Pictures like those that the tower will read, 50 or more; None leaves the
            int8 graph out.

    Raises:
        MissingExtraError: If the extra ``onnx`` is not installed.
        InvalidArgumentError: If the calibration pictures are an empty list.
        ImageError: If a calibration picture cannot be read. The message has its position.
        FileAccessError: If a file cannot be written.
    """
    if int8_calibration is not None and not int8_calibration:
        raise InvalidArgumentError("int8_calibration must have at least 1 picture, got none")
    with whole_files(folder, last=GRAPH_FILE) as scratch:
        graph = scratch / GRAPH_FILE
        write_graph(tower.backbone, tower.preprocess.size, [FEATURES], graph)
        if int8_calibration is not None:
            feeds = calibration_feeds(tower, int8_calibration)
            quantise(graph, scratch / INT8_FILE, feeds, weight_bits=MAX_BITS)
        (folder / INT8_FILE).unlink(missing_ok=True)  # it would belong to another tower


def serve_backbone(
    tower: VisionTower,
    folder: Path,
    *,
    int8: bool = False,
    threads: int | None = None,
    capabilities: Mapping[str, Any] | None = None,
) -> VisionTower:
    """Return a tower for the CPU that shares all of a tower but its backbone, which is a graph.

    An int8 graph is not used on a processor on which its sums overflow; then the float32 graph is,
    and a warning says so.

    Args:
        tower: Tower that the graphs were written from, on the CPU.
        folder: Folder that ``write_backbone`` wrote.
        int8: Whether to run the int8 graph.
        threads: Number of threads of one pass. None uses as many as torch.
        capabilities: Instruction sets of the processor. None is this one's.

    Raises:
        MissingExtraError: If the extra ``onnx`` is not installed.
        CheckpointError: If a graph is missing or damaged.
    """
    name = INT8_FILE if int8 else GRAPH_FILE
    session = open_session(folder / name, threads)
    metadata = {WEIGHT_BITS: str(MAX_BITS), **session.get_modelmeta().custom_metadata_map}
    if int8 and saturates(metadata, capabilities or torch.cpu.get_capabilities()):
        logger.warning(
            "%s is left out: its sums overflow on this processor (AVX2 without VNNI); %s runs, "
            "which is slower",
            folder / name,
            GRAPH_FILE,
        )
        session = open_session(folder / GRAPH_FILE, threads)
    features = cast(nn.Linear, tower.project[0]).in_features
    backbone = Backbone(OnnxBackbone(session), features, tower.preprocess, tower.spec)
    served = VisionTower(backbone, dim=tower.dim, classes=tower.classes, dropout=tower.dropout.p)
    served.project, served.heads = tower.project, tower.heads
    return served.eval()


def measure_parity(
    tower: VisionTower, served: VisionTower, images: Sequence[ImageSource]
) -> Parity:
    """Return how near two towers' answers are on pictures that neither was calibrated on.

    Args:
        tower: Tower.
        served: Result of ``serve_backbone``.
        images: One picture or more.

    Raises:
        InvalidArgumentError: If the list of pictures is empty.
        ImageError: If a picture cannot be read. The message has its position.
    """
    if not images:
        raise InvalidArgumentError("images must have at least 1 picture, got none")
    cosines, same = [], dict.fromkeys(tower.classes, 0)
    with torch.inference_mode():
        for batch in prepared_batches(images, tower.preprocess, batch_size=PICTURES_AT_ONCE):
            expected, got = tower.outputs(batch), served.outputs(batch)
            cosines.append((expected.embeddings * got.embeddings).sum(dim=1))
            for target, logits in expected.logits.items():
                equal = logits.argmax(dim=1) == got.logits[target].argmax(dim=1)
                same[target] += int(equal.sum())
    found = torch.cat(cosines)
    return Parity(
        n_pictures=len(images),
        cosine=float(found.mean()),
        lowest_cosine=float(found.min()),
        same_class={target: count / len(images) for target, count in same.items()},
    )
