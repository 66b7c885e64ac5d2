"""Which files a GPU decodes, and that it decodes them as the CPU does.

The CPU stands in for the GPU, because torchvision has the same decoder for both.
"""

from pathlib import Path

import pytest
import torch

from vision.batches import open_picture
from vision.deploy.gpu_decoder import GpuDecoder, Picture, batches_by_pixels, read_plain_jpeg
from vision.images import MAX_BYTES
from vision.transforms import Preprocess, build_reader

CPU = torch.device("cpu")


def test_plain_jpegs_alone_are_for_the_gpu(tmp_path: Path, paths: list[Path]) -> None:
    names = [path.name for path in paths if read_plain_jpeg(path) is not None]
    assert names == ["0.jpg", "3.jpg", "1.jpg", "4.jpg", "2.jpg"]
    data, area = read_plain_jpeg(paths[2]) or pytest.fail("it is a plain JPEG")
    assert bytes(data.tolist()) == paths[2].read_bytes()
    assert area == 90 * 120

    whole = paths[0].read_bytes()
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
    unsuited = {
        "cut": whole[:-400],
        "empty": b"",
        "text": b"not a picture",
        "adobe": whole[:2] + adobe + whole[2:],
        "long": whole[:-2] + bytes(MAX_BYTES) + whole[-2:],
    }
    for name, content in unsuited.items():
        (tmp_path / name).write_bytes(content)
        assert read_plain_jpeg(tmp_path / name) is None, name
    assert read_plain_jpeg(tmp_path) is None
    assert read_plain_jpeg(tmp_path / "missing.jpg") is None


def test_jpegs_with_too_many_pixels_are_left_to_the_safety_boundary(paths: list[Path]) -> None:
    assert read_plain_jpeg(paths[2], max_pixels=90 * 120) is not None
    assert read_plain_jpeg(paths[2], max_pixels=90 * 120 - 1) is None
    assert read_plain_jpeg(paths[0], max_pixels=90 * 120 - 1) is not None


@pytest.mark.filterwarnings("ignore:.*superseded:DeprecationWarning")
def test_the_cpu_decodes_a_jpeg_that_the_gpu_refuses(paths: list[Path]) -> None:
    decoder = GpuDecoder(Preprocess(size=32), CPU, rows=3)
    pictures = [decoder.read(row, paths[row]) for row in (0, 2, 3)]
    whole = decoder.decode(pictures)
    garbage = torch.zeros(100, dtype=torch.uint8)
    got = decoder.decode([pictures[0], pictures[1]._replace(content=garbage), pictures[2]])
    assert (got.int() - whole.int()).abs().max() <= 3
    assert decoder.refused == 1
    assert decoder.reason


def test_the_cpu_resizes_with_a_filter_that_tensors_do_not_have(paths: list[Path]) -> None:
    decoder = GpuDecoder(Preprocess(size=32, interpolation="lanczos"), CPU, rows=2)
    picture = decoder.read(0, paths[0])
    assert picture.content.shape == (3, 32, 32)
    assert picture.area == 0


@pytest.mark.filterwarnings("ignore:.*superseded:DeprecationWarning")
def test_the_decoder_crops_the_same_centre_as_the_cpu(paths: list[Path]) -> None:
    preprocess = Preprocess(size=32, fit="crop")
    jpegs = [path for path in paths if read_plain_jpeg(path) is not None]
    decoder, read = GpuDecoder(preprocess, CPU, rows=len(jpegs)), build_reader(preprocess)
    got = decoder.decode([decoder.read(row, path) for row, path in enumerate(jpegs)])
    wanted = torch.stack([read(open_picture(path, preprocess.size)) for path in jpegs])
    assert (got.int() - wanted.int()).abs().max() <= 3


def test_rows_are_grouped_by_the_pixels_that_decoding_needs() -> None:
    areas = (10, 0, 10, 25, 5, 10, 1)
    pictures = [Picture(row, Path(), torch.zeros(0), area) for row, area in enumerate(areas)]
    assert [*batches_by_pixels(pictures, 20)] == [[0, 2], [3], [4, 5, 6]]
