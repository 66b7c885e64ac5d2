"""Files embedded in bulk: every file gets its own embedding, in the order of the paths.

The CPU stands in for the GPU, because torchvision has the same decoder for both.
"""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.planted import save_jpeg, save_rotated_jpeg, smooth_picture
from vision.arrays import Floats
from vision.deploy.bulk import embed_files, embed_with_decoder, prefetch
from vision.deploy.gpu_decoder import MAX_DECODED_PIXELS, GpuDecoder
from vision.images import ImageError
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower


@pytest.fixture(scope="module")
def tower() -> VisionTower:
    torch.manual_seed(0)
    tower = VisionTower(build_backbone("test_resnet", size=32), dim=16, classes={"a": ["b", "c"]})
    # Batch norms need the statistics of a trained network, or all embeddings would be the same.
    with torch.no_grad():
        for _ in range(20):
            tower(F.interpolate(torch.randn(32, 3, 5, 6), (32, 32), mode="bicubic"))
    return tower.eval()


def embed_with_gpu_decoder(
    tower: VisionTower,
    paths: list[Path],
    *,
    rows: int = 4,
    max_pixels: int = MAX_DECODED_PIXELS,
) -> tuple[Floats, GpuDecoder]:
    decoder = GpuDecoder(tower.preprocess, torch.device("cpu"), rows, max_pixels=max_pixels)
    return embed_with_decoder(tower, paths, decoder, precision="32-true"), decoder


@pytest.mark.parametrize("rows", [1, 4, 9])
def test_every_file_gets_the_embedding_of_the_tower_in_its_place(
    tower: VisionTower, paths: list[Path], rows: int
) -> None:
    wanted = tower.embed(paths)
    got, decoder = embed_with_gpu_decoder(tower, paths, rows=rows)
    assert got.dtype == np.float32
    assert (got * wanted).sum(axis=1).min() > 0.999
    assert np.partition(wanted @ wanted.T, -2)[:, -2].max() < 0.99, "all pictures differ"
    assert (decoder.unsuited, decoder.refused) == (4, 0)


def test_on_a_cpu_it_is_the_embedding_of_the_tower(tower: VisionTower, paths: list[Path]) -> None:
    got = embed_files(tower, paths, device="cpu", batch_size=4, precision="32-true")
    np.testing.assert_array_equal(got, tower.embed(paths, batch_size=4))


def test_no_files_give_no_rows(tower: VisionTower) -> None:
    assert embed_files(tower, [], device="cpu").shape == (0, 16)
    assert embed_with_gpu_decoder(tower, [], rows=0)[0].shape == (0, 16)


def test_a_rotated_picture_is_embedded_upright(tower: VisionTower, tmp_path: Path) -> None:
    files = [
        save_jpeg(smooth_picture(1), tmp_path / "a.jpg"),
        save_rotated_jpeg(smooth_picture(1), tmp_path / "b.jpg"),
    ]
    upright, side = embed_with_gpu_decoder(tower, files)[0]
    assert upright @ side > 0.999


def test_the_number_of_pictures_decoded_by_the_cpu_is_logged(
    tower: VisionTower, paths: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "vision.deploy.bulk"):
        embed_with_gpu_decoder(tower, paths)
        embed_with_gpu_decoder(tower, paths[2:4])
    assert caplog.messages == ["the CPU decoded 4 of 9 pictures, and 0 more that the GPU refused"]


def test_decoding_in_small_groups_gives_the_same_embeddings(
    tower: VisionTower, paths: list[Path]
) -> None:
    grouped, _ = embed_with_gpu_decoder(tower, paths, rows=9, max_pixels=20)
    whole, _ = embed_with_gpu_decoder(tower, paths, rows=9)
    np.testing.assert_allclose(grouped, whole, atol=1e-5)


def test_an_unreadable_file_is_named_by_its_position(
    tower: VisionTower, paths: list[Path], tmp_path: Path
) -> None:
    torn = tmp_path / "torn.jpg"
    torn.write_bytes(paths[0].read_bytes().replace(b"\xff\xdb", b"\xff\xe5"))  # no quantisation
    for bad in (torn, tmp_path / "missing.jpg"):
        with pytest.raises(ImageError, match=rf"image 6: .*{bad.name}") as caught:
            embed_with_gpu_decoder(tower, [*paths[:6], bad, *paths[7:]])
        assert caught.value.position == 6


def test_wrong_arguments_are_refused_by_name(tower: VisionTower, paths: list[Path]) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        embed_files(tower, paths, device="cpu", batch_size=0)
    with pytest.raises(ValueError, match="compile must be False on a CPU, got True on cpu"):
        embed_files(tower, paths, device="cpu", compile=True)


def test_the_tower_stays_in_its_mode(tower: VisionTower, paths: list[Path]) -> None:
    tower.train()
    before = embed_with_gpu_decoder(tower, paths)[0]
    assert tower.training
    np.testing.assert_allclose(before, embed_with_gpu_decoder(tower.eval(), paths)[0], atol=1e-6)


def test_prefetch_keeps_the_order_and_reads_no_further_ahead_than_asked() -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(4) as threads:
        squares = prefetch(lambda number: number**2, numbers(), threads, 3)
        assert next(squares) == 0
        assert taken == [0, 1, 2, 3]
        assert list(squares) == [number**2 for number in range(1, 10)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("compiled", [False, True])
def test_a_gpu_gives_every_file_its_embedding(
    tower: VisionTower, paths: list[Path], compiled: bool
) -> None:
    wanted = tower.embed(paths)
    try:
        for _ in range(3):
            got = embed_files(tower, paths * 5, device="cuda", batch_size=8, compile=compiled)
            assert (got * np.tile(wanted, (5, 1))).sum(axis=1).min() > 0.99
    finally:
        tower.cpu()
