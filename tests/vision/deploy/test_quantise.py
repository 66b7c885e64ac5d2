"""Int8 graphs add up exactly on every processor, also where sums of two products have 16 bits."""

from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest
from numpy.typing import NDArray

from vision.deploy.quantise import quantise, saturates

AVX2 = {"avx2": True, "avx_vnni": False, "avx512_vnni": False}
ARM = {"neon": True, "dot": True}

GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
planted (float[N, 4, 6, 6] images) => (float[N, 3] answers) {
    maps = Conv <kernel_shape = [3, 3]> (images, kernel)
    positive = Relu (maps)
    flat = Flatten (positive)
    hidden = Gemm <transB = 1> (flat, gemm, bias)
    answers = MatMul (hidden, matmul)
}
"""


def gaussian(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a graph of all operators that have weights, in float32 and in int8."""
    folder = tmp_path_factory.mktemp("planted")
    model = onnx.parser.parse_model(GRAPH)
    weights = {
        "kernel": gaussian(8, 4, 3, 3, seed=1),
        "gemm": gaussian(16, 128, seed=2),
        "bias": gaussian(16, seed=3),
        "matmul": gaussian(16, 3, seed=4),
    }
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(values, name) for name, values in weights.items()
    )
    onnx.save(model, folder / "float32.onnx")
    feeds = ({"images": gaussian(16, 4, 6, 6, seed=seed)} for seed in range(4))
    quantise(folder / "float32.onnx", folder / "int8.onnx", feeds)
    return folder


def int8_weights(path: Path) -> list[NDArray[np.int64]]:
    """Return the quantised weights of a graph, without the zero points."""
    tensors = onnx.load(path).graph.initializer
    int8 = [tensor for tensor in tensors if tensor.data_type == onnx.TensorProto.INT8]
    return [
        onnx.numpy_helper.to_array(tensor).astype(np.int64)
        for tensor in int8
        if len(tensor.dims) > 1
    ]


def test_two_products_of_any_weight_fit_16_bits(planted: Path) -> None:
    weights = int8_weights(planted / "int8.onnx")
    assert len(weights) == 3, "the convolution, the Gemm and the MatMul are quantised"
    for values in weights:
        # The largest activation times the two weights that vpmaddubsw adds, were they neighbours.
        assert 255 * np.sort(np.abs(values), axis=None)[-2:].sum() <= np.iinfo(np.int16).max
        assert np.abs(values).max() > 32, "all seven bits are in use"


def test_int8_answers_nearly_as_float32(planted: Path) -> None:
    images = gaussian(40, 4, 6, 6, seed=9)
    expected, got = (
        onnxruntime.InferenceSession(
            planted / f"{name}.onnx", providers=["CPUExecutionProvider"]
        ).run(None, {"images": images})[0]
        for name in ("float32", "int8")
    )
    cosines = (expected * got).sum(axis=1) / np.linalg.norm(expected, axis=1)
    cosines /= np.linalg.norm(got, axis=1)
    assert cosines.min() > 0.99


def test_a_graph_says_how_many_bits_its_weights_have(planted: Path) -> None:
    model = onnx.load(planted / "int8.onnx")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["weight_bits"] == "7"
    assert not saturates(metadata, AVX2)


@pytest.mark.parametrize(
    ("metadata", "capabilities", "expected"),
    [
        ({}, AVX2, True),
        ({"weight_bits": "8"}, AVX2, True),
        ({"weight_bits": "7"}, AVX2, False),
        ({}, AVX2 | {"avx512_f": True}, True),
        ({}, AVX2 | {"avx512_vnni": True}, False),
        ({}, AVX2 | {"avx_vnni": True}, False),
        ({}, AVX2 | {"avx2": False}, False),
        ({}, ARM, False),
    ],
)
def test_eight_bits_saturate_on_avx2_without_vnni(
    metadata: dict[str, str], capabilities: dict[str, bool], expected: bool
) -> None:
    assert saturates(metadata, capabilities) is expected
