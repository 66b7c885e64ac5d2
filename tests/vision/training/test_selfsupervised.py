"""One pretraining step: what is drawn, what stops it, what it keeps."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vision.config import PretrainingConfig
from vision.dataset import Batch, Samples, decode_samples
from vision.networks.backbones import build_backbone
from vision.training.selfsupervised import SelfSupervised
from vision.training.siamese import build_method
from vision.transforms import Preprocess, normalise


def build(**changes: object) -> SelfSupervised:
    config = PretrainingConfig.model_validate({"hidden": 16, "dim": 8, **changes})
    torch.manual_seed(0)
    backbone = build_backbone("test_resnet", size=32)
    return SelfSupervised(
        build_method(backbone.network, backbone.dim, config),
        config,
        preprocess=backbone.preprocess,
        images=[Path(f"{row}.png") for row in range(40)],
        total_steps=10,
        seed=1,
    )


@pytest.fixture
def batch(planted: Callable[..., Samples]) -> Batch:
    samples = planted(40)
    unlabelled = Samples(samples.images, {}, {}, root=samples.root)
    pictures = decode_samples(unlabelled, Preprocess(size=36), spill=None, progress=False)
    return pictures.__getitems__(list(range(30, 40)))


def test_pictures_need_no_labels(batch: Batch) -> None:
    assert batch.targets.shape == (10, 0)


@pytest.mark.parametrize("method", ["simclr", "byol"])
def test_the_seed_of_a_step_repeats_it(method: str, batch: Batch) -> None:
    learner = build(method=method)
    first = learner.training_step(batch, 0)
    torch.randn(100)
    torch.testing.assert_close(learner.training_step(batch, 5), first, atol=0, rtol=0)
    learner.seed = 2
    assert (learner.training_step(batch, 0) - first).abs() > 1e-4


def test_the_two_views_of_a_picture_differ(batch: Batch) -> None:
    first, second = build().draw_views(batch)
    assert first.shape == second.shape == (10, 3, 32, 32)
    assert ((first - second).abs().mean(dim=(1, 2, 3)) > 0.01).all()


def test_views_are_of_the_same_pictures_in_the_same_order(batch: Batch) -> None:
    learner = build(augmentation="none")
    first, second = learner.draw_views(batch._replace(pictures=batch.pictures[:, :, 2:34, 2:34]))
    torch.testing.assert_close(first, second)
    wanted = normalise(batch.pictures[:, :, 2:34, 2:34], learner.preprocess)
    torch.testing.assert_close(first, wanted, atol=1e-4, rtol=1e-4)


def test_a_step_s_pictures_are_named_by_their_files(batch: Batch) -> None:
    assert build().name_samples(batch) == [f"{row}.png" for row in range(30, 40)]


def test_the_averaged_weights_are_not_optimised_and_norms_do_not_decay() -> None:
    learner = build(method="byol", weight_decay=0.3)
    decayed, free = learner.configure_optimizers()["optimizer"].param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    assert {p.ndim for p in free["params"]} == {1}
    given = {id(p) for group in (decayed, free) for p in group["params"]}
    method = learner.method
    learning = [p for name, p in method.named_parameters() if not name.startswith("target.")]
    assert given == {id(p) for p in learning}
