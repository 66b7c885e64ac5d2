"""Quantisation of an ONNX graph to int8, with some pictures for calibration."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision.errors import MissingExtraError
from vision.files import scratch_folder

Feed = dict[str, NDArray[np.float32]]  # input name -> batch

WEIGHT_BITS = "weight_bits"  # key of the graph's metadata; without it, weights have 8 bits
MAX_BITS = 8
EXACT_BITS = 7  # two products of 255 and a weight within ±64 fit 16 bits


def quantise(
    model: Path, out: Path, feeds: Iterator[Feed], *, weight_bits: int = EXACT_BITS
) -> None:
    """Write the graph with int8 weights and uint8 activations.

    Static quantisation by ONNX Runtime. Weights have one scale per channel. The scale of an
    activation follows from its smallest and largest value over all feeds. Methods that cut off rare
    values (percentile, entropy) keep every activation in memory, and the accuracy of a ResNet-18 on
    the test photos of Grocery Store was the same to 0.2 points. Activations are unsigned, because
    x86 multiplies unsigned activations fastest with signed weights.

    Weights use 7 of their 8 bits, so that the results are exact on every processor, see
    ``saturates``. Unsigned weights of 8 bits are exact as well, but run at half the speed or less.

    Args:
        model: File of the graph in float32.
        out: File to write.
        feeds: Inputs like those that the graph will read, one batch at a time.
        weight_bits: 7, or 8 for a graph that only processors run on which it does not saturate.

    Raises:
        MissingExtraError: If the extra ``onnx`` is not installed.
        FileAccessError: If a file cannot be written.
    """
    try:
        import onnx
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise MissingExtraError(
            "int8 needs onnx and onnxruntime: pip install 'vitrine-recsys[onnx]'"
        ) from error
    with _temporary_files_beside(out) as folder:
        folded, quantised = folder / "folded.onnx", folder / "quantised.onnx"
        # This folds constants. The exporter has written all shapes, and the symbolic shape
        # inference of ONNX Runtime fails for some of them.
        quant_pre_process(model, folded, skip_symbolic_shape=True)
        quantization.quantize_static(
            folded,
            quantised,
            _Reader(feeds),
            op_types_to_quantize=_operators(
                {node.op_type for node in onnx.load(folded).graph.node}
            ),
            per_channel=True,
            reduce_range=weight_bits < MAX_BITS,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            # Attention multiplies activations with each other, where int8 loses most accuracy.
            extra_options={"MatMulConstBOnly": True},
        )
        graph = onnx.load(quantised)
    graph.metadata_props.add(key=WEIGHT_BITS, value=str(weight_bits))
    onnx.save(graph, out)


@contextmanager
def _temporary_files_beside(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside a file, where ONNX Runtime makes its temporary files, too."""
    before = tempfile.tempdir
    with scratch_folder(out) as folder:
        tempfile.tempdir = str(folder)
        try:
            yield folder
        finally:
            tempfile.tempdir = before


def saturates(metadata: Mapping[str, str], capabilities: Mapping[str, Any]) -> bool:
    """Return whether sums in an int8 graph may overflow on a processor, which gives wrong results.

    With AVX2 or AVX-512 and without VNNI, ONNX Runtime adds two products in 16 bits
    (``vpmaddubsw``). Weights of 7 bits never exceed them, and weights of 8 bits may.

    Args:
        metadata: Metadata of the graph, which ``quantise`` writes.
        capabilities: Instruction sets of the processor, as in ``torch.cpu.get_capabilities``.
    """
    exact = int(metadata.get(WEIGHT_BITS, MAX_BITS)) <= EXACT_BITS
    vnni = capabilities.get("avx_vnni", False) or capabilities.get("avx512_vnni", False)
    return bool(capabilities.get("avx2", False)) and not (exact or vnni)


def _operators(present: set[str]) -> list[str]:
    """Return the operators to compute in int8."""
    products = ["Conv", "Gemm", "MatMul"]
    if "LayerNormalization" in present:
        # The residual sums of a transformer stay in float32, which its norms need.
        return products
    # Between convolutions everything stays in int8, because conversions would cost the gain. The
    # bounds of a Clip, which is a ReLU6, are the exact range of what follows.
    return [*products, "Add", "Relu", "Clip", "MaxPool", "AveragePool"]


class _Reader:
    """The feeds with the method that ONNX Runtime calls."""

    def __init__(self, feeds: Iterator[Feed]) -> None:
        self.feeds = feeds

    def get_next(self) -> Feed | None:
        return next(self.feeds, None)
