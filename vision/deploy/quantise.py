"""An ONNX graph in int8, from float32 and some pictures."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision.errors import MissingExtraError

Feed = dict[str, NDArray[np.float32]]  # input name -> batch

WEIGHT_BITS = "weight_bits"  # key of the graph's metadata; without it, weights have 8 bits
EXACT_BITS = 7  # two products of 255 and a weight within ±64 fit 16 bits


def quantise(model: Path, out: Path, feeds: Iterator[Feed]) -> None:
    """Write the graph with int8 weights and uint8 activations.

    Static quantisation by ONNX Runtime. A weight has a scale per channel, an activation the one
    that its smallest and largest value over the feeds give. Cutting off the rarest values instead
    (percentile, entropy) keeps every activation of every picture in memory, and on Grocery Store's
    test photos a ResNet-18 was right as often, to 0.2 points. Unsigned activations are what x86
    multiplies fastest with signed weights.

    Weights use 7 of their 8 bits, so that the file is exact on the processor that later runs it:
    see ``saturates``. Unsigned weights are exact with 8 bits, but run at half the speed.

    Args:
        model: The graph in float32.
        out: Where to.
        feeds: Inputs such as the graph will see, a batch at a time.

    Raises:
        MissingExtraError: If the extra ``onnx`` is not installed.
    """
    try:
        import onnx
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise MissingExtraError(
            "int8 needs onnx and onnxruntime: pip install 'vitrine-recsys[onnx]'"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        folded, quantised = Path(folder, "folded.onnx"), Path(folder, "quantised.onnx")
        # Folds what can be folded. The exporter has written all shapes; ONNX Runtime's own
        # symbolic inference fails on some that it wrote.
        quant_pre_process(model, folded, skip_symbolic_shape=True)
        quantization.quantize_static(
            folded,
            quantised,
            _Reader(feeds),
            op_types_to_quantize=_operators(
                {node.op_type for node in onnx.load(folded).graph.node}
            ),
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            # Attention multiplies activations with each other, in which int8 loses most.
            extra_options={"MatMulConstBOnly": True},
        )
        graph = onnx.load(quantised)
    graph.metadata_props.add(key=WEIGHT_BITS, value=str(EXACT_BITS))
    onnx.save(graph, out)


def saturates(metadata: Mapping[str, str], capabilities: Mapping[str, Any]) -> bool:
    """Return whether a processor cuts off sums of an int8 graph, and so answers wrongly.

    With AVX2 or AVX-512 and without VNNI, ONNX Runtime adds two products in 16 bits
    (``vpmaddubsw``). Weights of 7 bits never fill them, weights of 8 bits do.

    Args:
        metadata: Metadata of the graph, which ``quantise`` writes.
        capabilities: Instruction sets of the processor, as in ``torch.cpu.get_capabilities``.
    """
    exact = int(metadata.get(WEIGHT_BITS, 8)) <= EXACT_BITS
    vnni = capabilities.get("avx_vnni", False) or capabilities.get("avx512_vnni", False)
    return bool(capabilities.get("avx2", False)) and not (exact or vnni)


def _operators(present: set[str]) -> list[str]:
    """Return the operators to compute in int8."""
    products = ["Conv", "Gemm", "MatMul"]
    if "LayerNormalization" in present:
        # A transformer's sums run through all blocks in float32, and the norms read them so.
        return products
    # Between convolutions everything stays in int8: to go back and forth would cost the gain.
    return [*products, "Add", "Relu", "MaxPool", "AveragePool"]


class _Reader:
    """Feeds as ONNX Runtime asks for them."""

    def __init__(self, feeds: Iterator[Feed]) -> None:
        self.feeds = feeds

    def get_next(self) -> Feed | None:
        return next(self.feeds, None)
