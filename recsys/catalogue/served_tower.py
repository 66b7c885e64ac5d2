"""The vision tower as graphs that a CPU runs in place of torch."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vision.deploy.served import serve_backbone
from vision.tower import VisionTower

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedTower:
    """The graphs of a vision tower, and how near their answers are to torch's.

    Args:
        folder: Folder that ``vision.deploy.served.write_backbone`` wrote.
        tower: Which graph runs: "onnx", or "int8" for the quantised one.
        parity: Fields of ``vision.deploy.served.Parity``, as JSON values.
    """

    folder: Path
    tower: str
    parity: Mapping[str, Any]

    def describe(self) -> dict[str, Any]:
        """Return what ``bundle.json`` keeps."""
        return {"tower": self.tower, "parity": dict(self.parity)}

    def sentence(self) -> str:
        """Return what runs the tower, and how near its answers are."""
        same = [
            f"{share:.1%} of the answers for {name}"
            for name, share in self.parity["same_class"].items()
        ]
        return (
            f"a CPU runs the vision tower as {self.tower}; on {self.parity['n_pictures']} pictures "
            f"the mean cosine with torch's embeddings is {self.parity['cosine']:.4f}, the lowest "
            f"{self.parity['lowest_cosine']:.4f}" + "".join(f", {one} are the same" for one in same)
        )

    def of(self, tower: VisionTower) -> VisionTower:
        """Return a tower whose backbone is the graph; the tower itself without ONNX Runtime."""
        if find_spec("onnxruntime") is None:
            logger.warning(
                "torch runs the vision tower, which is slower than its graph: "
                "pip install 'vitrine-recsys[onnx]'"
            )
            return tower
        return serve_backbone(tower, self.folder, int8=self.tower == "int8")
