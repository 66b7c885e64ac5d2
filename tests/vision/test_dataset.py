"""Samples are checked when they are made, and pictures are decoded once."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.counting import count_decodes
from tests.full_disk import files_up_to
from tests.odd_pictures import broken, readable
from tests.planted import plain_picture
from vision.arrays import Ints
from vision.dataset import EpochShuffle, Samples, decode_samples
from vision.errors import FileAccessError, TrainingError
from vision.images import load
from vision.transforms import Preprocess, build_reader

PREPROCESS = Preprocess(size=24)


def labels(*values: int) -> dict[str, Ints]:
    return {"colour": np.array(values, dtype=np.int64)}


def test_samples_refuse_labels_of_the_wrong_range_shape_or_type() -> None:
    images, classes = [Path("a"), Path("b")], {"colour": ["red", "blue"]}
    Samples(images, labels(-1, 1), classes)
    with pytest.raises(ValueError, match=r"between -1 and 1, got 0 to 2"):
        Samples(images, labels(0, 2), classes)
    with pytest.raises(ValueError, match=r"between -1 and 1, got -2 to 0"):
        Samples(images, labels(-2, 0), classes)
    with pytest.raises(ValueError, match=r"must be int64 \(2,\), got int64 \(3,\)"):
        Samples(images, labels(0, 1, 0), classes)
    with pytest.raises(ValueError, match=r"must be int64 \(2,\), got int32"):
        Samples(images, {"colour": np.array([0, 1], dtype=np.int32)}, classes)
    with pytest.raises(ValueError, match=r"same targets in the same order, got \['colour'\] and"):
        Samples(images, labels(0, 1), {"size": ["small"]})


def test_the_fingerprint_changes_with_every_part_of_the_samples(
    planted: Callable[..., Samples],
) -> None:
    samples = planted(3)
    changes = [
        samples,
        samples.take([0, 1]),
        replace(samples, images=samples.images[::-1]),
        replace(samples, unlabelled=samples.images[:1]),
        replace(samples, classes={name: [*names, "x"] for name, names in samples.classes.items()}),
        replace(samples, targets={name: -1 + 0 * rows for name, rows in samples.targets.items()}),
    ]
    assert len({one.fingerprint() for one in changes}) == len(changes)
    assert replace(samples).fingerprint() == samples.fingerprint()


def test_decoded_pictures_equal_those_on_disk(planted: Callable[..., Samples]) -> None:
    samples = planted(6)
    pictures = decode_samples(samples, PREPROCESS, spill=None, progress=False)
    batch = pictures.__getitems__([4, 1])
    assert batch.pictures.shape == (2, 3, 24, 24)
    for place, row in enumerate((4, 1)):
        on_disk = build_reader(PREPROCESS)(load(samples.images[row], samples.root))
        torch.testing.assert_close(batch.pictures[place], on_disk)
    assert batch.rows.tolist() == [4, 1]
    assert batch.targets[:, 0].tolist() == [0, 1]
    torch.testing.assert_close(batch.aspects, torch.tensor([1.2, 1.2]))


def test_pixels_in_a_file_equal_those_in_memory(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    samples = planted(6)
    in_memory = decode_samples(samples, PREPROCESS, spill=None, progress=False)
    on_disk = decode_samples(samples, PREPROCESS, spill=tmp_path, progress=False)
    assert on_disk.pictures.numpy().base is not None
    assert not [*tmp_path.iterdir()], "a killed process leaves nothing"
    torch.testing.assert_close(on_disk.pictures, in_memory.pictures)


def test_pixels_that_have_no_room_are_refused_before_anything_is_decoded(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    samples, wanted = planted(6), rf"{tmp_path} cannot be written \(File too large\)"
    with pytest.raises(FileAccessError, match=wanted), files_up_to(1_000):
        decode_samples(samples, PREPROCESS, spill=tmp_path, progress=False)


def test_unreadable_pictures_are_left_out_and_reported(
    planted: Callable[..., Samples], caplog: pytest.LogCaptureFixture
) -> None:
    samples = planted(8)
    assert samples.root is not None
    (samples.root / "2.png").write_bytes(b"")
    (samples.root / "5.png").unlink()
    (samples.root / "7.png").unlink()
    (samples.root / "7.png").symlink_to("/etc/hostname")
    with caplog.at_level(logging.WARNING, logger="vision.dataset"):
        pictures = decode_samples(samples, PREPROCESS, spill=None, progress=False)
    assert [str(rejected.image) for rejected in pictures.rejected] == ["2.png", "5.png", "7.png"]
    reasons = " ".join(rejected.reason for rejected in pictures.rejected)
    for part in ("empty", "cannot be found", "is outside its root"):
        assert part in reasons
        assert part in caplog.text
    assert len(pictures) == 5
    batch = pictures.__getitems__(list(range(5)))
    assert batch.rows.tolist() == [0, 1, 3, 4, 6]
    assert batch.targets[:, 0].tolist() == [0, 1, 3, 0, 2]


def test_a_picture_in_several_rows_is_decoded_once_and_stored_in_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_picture((200, 30, 30)).save(tmp_path / "red.png")
    plain_picture((30, 30, 200)).save(tmp_path / "blue.png")
    (tmp_path / "text.png").write_text("hello")
    names = ["text.png", "red.png", "blue.png", "red.png", "text.png"]
    samples = Samples([tmp_path / name for name in names], {}, {})
    counts = count_decodes(monkeypatch)
    pictures = decode_samples(samples, PREPROCESS, spill=None, progress=False)
    assert [*counts.values()] == [1, 1]
    assert pictures.rows.tolist() == [1, 2, 3]
    assert [image.name for image, _ in pictures.rejected] == ["text.png", "text.png"]
    red, blue, again = pictures.__getitems__([0, 1, 2]).pictures
    assert torch.equal(red, again)
    assert not torch.equal(red, blue)


def test_samples_without_a_readable_picture_are_refused(tmp_path: Path) -> None:
    samples = Samples([Path("gone.png")], labels(0), {"colour": ["red"]}, root=tmp_path)
    with pytest.raises(TrainingError, match=r"none of 1 pictures can be read: .*gone\.png"):
        decode_samples(samples, PREPROCESS, spill=None, progress=False)


def test_pictures_of_extreme_shapes_are_stored(tmp_path: Path) -> None:
    plain_picture((0, 0, 0), width=1, height=1).save(tmp_path / "dot.png")
    plain_picture((0, 0, 0), width=900, height=3).save(tmp_path / "line.png")
    samples = Samples(
        [Path("dot.png"), Path("line.png")], labels(0, 0), {"colour": ["red"]}, root=tmp_path
    )
    pictures = decode_samples(samples, PREPROCESS, spill=None, progress=False)
    assert pictures.aspects.tolist() == [1.0, 300.0]


def test_a_loader_reads_whole_batches(planted: Callable[..., Samples]) -> None:
    pictures = decode_samples(planted(10), PREPROCESS, spill=None, progress=False)
    batches = list(DataLoader(pictures, batch_size=4, collate_fn=lambda batch: batch))
    assert [len(batch.rows) for batch in batches] == [4, 4, 2]
    assert torch.cat([batch.rows for batch in batches]).tolist() == list(range(10))


def test_every_epoch_has_its_own_order_and_a_seed_repeats_it() -> None:
    def orders(seed: int) -> list[list[int]]:
        sampler = EpochShuffle(50, seed)
        drawn = []
        for epoch in (0, 1, 2):
            sampler.set_epoch(epoch)
            drawn.append(list(sampler))
        return drawn

    first = orders(3)
    assert orders(3) == first
    assert orders(4) != first
    assert len({tuple(order) for order in first}) == 3
    assert all(sorted(order) == list(range(50)) for order in first)


def test_odd_pictures_are_read_and_broken_ones_are_rejected_with_a_reason(tmp_path: Path) -> None:
    files = {**readable(), **broken()}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    outside = tmp_path.parent / "outside.png"
    outside.write_bytes(readable()["palette.png"])
    (tmp_path / "link.png").symlink_to(outside)
    images = [Path(name) for name in [*files, "link.png", "missing.jpg"]]
    samples = Samples(
        images, {"kind": np.zeros(len(images), dtype=np.int64)}, {"kind": ["a"]}, root=tmp_path
    )
    pictures = decode_samples(samples, PREPROCESS, spill=None, progress=False)
    read = {str(images[row]) for row in pictures.rows.tolist()}
    assert read == set(readable())
    assert {str(image) for image, _ in pictures.rejected} == {*broken(), "link.png", "missing.jpg"}
    reasons = {str(image): reason for image, reason in pictures.rejected}
    assert "empty" in reasons["empty.jpg"]
    assert "pixels" in reasons["bomb.png"]
    assert "cannot be decoded" in reasons["truncated.jpg"]
    assert "is outside its root" in reasons["link.png"]
