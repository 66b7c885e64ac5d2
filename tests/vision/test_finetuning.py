"""A tower learns planted shapes, and an interrupted run ends as an uninterrupted one."""

import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from vision.checkpoint import save
from vision.config import VisionConfig
from vision.dataset import Samples
from vision.errors import TrainingError, WeightsError
from vision.finetuning import FinetuneResult, check_start, finetune, finetune_run
from vision.training.run import TrainingRun

CONFIG = VisionConfig(
    backbone="test_resnet",
    pretrained=False,
    size=32,
    dim=16,
    epochs=6,
    batch_size=16,
    learning_rate=2e-3,
    augmentation="light",
    label_smoothing=0.0,
    precision="32-true",
)


def changed(**changes: Any) -> VisionConfig:
    return VisionConfig.model_validate({**CONFIG.model_dump(), **changes})


def images_of(samples: Samples) -> list[Path]:
    assert samples.root is not None
    return [samples.root / image for image in samples.images]


@pytest.fixture(scope="module")
def trained(
    planted: Callable[..., Samples], tmp_path_factory: pytest.TempPathFactory
) -> tuple[FinetuneResult, Samples, Samples, Path]:
    train, validation = planted(160), planted(60, seed=1)
    workdir = tmp_path_factory.mktemp("run")
    config = changed(ema=0.9)
    result = finetune(train, config, validation=validation, workdir=workdir, seed=0)
    return result, train, validation, workdir


Trained = tuple[FinetuneResult, Samples, Samples, Path]


def test_planted_targets_are_learned_far_better_than_by_chance(trained: Trained) -> None:
    result = trained[0]
    assert result.metrics["accuracy/colour"] > 0.9, "chance is 0.25"
    assert result.metrics["accuracy/side.of it"] > 0.8, "chance is 0.5"
    assert result.epochs == 6
    assert result.rejected == ()
    assert not result.tower.training


def test_reported_accuracy_is_that_of_the_returned_tower(trained: Trained) -> None:
    result, _, validation, _ = trained
    got = result.tower.predict_proba(images_of(validation))
    for name, labels in validation.targets.items():
        known = labels >= 0
        right = (got[name].argmax(axis=1) == labels)[known].mean()
        # A picture on the edge may fall either way: one is resized from a stored copy.
        assert result.metrics[f"accuracy/{name}"] == pytest.approx(right, abs=0.02)


def test_nearest_neighbours_share_their_class(trained: Trained) -> None:
    result, train, validation, _ = trained
    gallery = result.tower.embed(images_of(train))
    queries = result.tower.embed(images_of(validation))
    nearest = (queries @ gallery.T).argmax(axis=1)
    same = train.targets["colour"][nearest] == validation.targets["colour"]
    assert same.mean() > 0.9, "chance is 0.25"


def test_a_finished_run_is_not_trained_again(trained: Trained) -> None:
    result, train, validation, workdir = trained
    before = (workdir / "last.ckpt").stat().st_mtime_ns
    again = finetune(train, changed(ema=0.9), validation=validation, workdir=workdir, seed=0)
    assert (workdir / "last.ckpt").stat().st_mtime_ns == before
    assert again.metrics == result.metrics
    same = again.tower.state_dict()
    for name, value in result.tower.state_dict().items():
        torch.testing.assert_close(same[name], value, atol=0, rtol=0)


def test_the_checkpoint_of_another_run_is_refused(trained: Trained) -> None:
    _, train, validation, workdir = trained
    for config, seed in ((changed(ema=0.9, epochs=7), 0), (changed(ema=0.9), 1)):
        with pytest.raises(TrainingError, match=r"last\.ckpt is of a run with other data"):
            finetune(train, config, validation=validation, workdir=workdir, seed=seed)


def test_a_run_whose_pictures_were_edited_is_refused(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    samples, config = planted(8), changed(epochs=1)
    finetune(samples, config, workdir=tmp_path, seed=0)
    finetune(samples, config, workdir=tmp_path, seed=0)
    assert samples.root is not None
    edited = samples.root / samples.images[0]
    os.utime(edited, ns=(0, edited.stat().st_mtime_ns + 1))  # the same name and size
    with pytest.raises(TrainingError, match=r"last\.ckpt is of a run with other data"):
        finetune(samples, config, workdir=tmp_path, seed=0)


class Interrupt(Callback):
    """The power goes after an epoch."""

    def __init__(self, after_epoch: int) -> None:
        self.after_epoch = after_epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == self.after_epoch:
            raise KeyboardInterrupt


def test_a_resumed_run_ends_as_an_uninterrupted_one(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    train, validation = planted(48), planted(16, seed=1)
    config = changed(
        epochs=3, ema=0.8, dropout=0.3, drop_path=0.2, mixup=0.4, cutmix=1.0, patience=3
    )

    def run(workdir: str, *callbacks: Callback) -> FinetuneResult:
        place = TrainingRun(tmp_path / workdir, 5, torch.device("cpu"))
        return finetune_run(train, config, place, validation=validation, callbacks=callbacks)

    whole = run("whole")
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run("halves", Interrupt(1))
    # Whatever else draws from the global generator in between must not matter.
    torch.manual_seed(99)
    resumed = run("halves")
    assert resumed.metrics == whole.metrics
    for name, value in whole.tower.state_dict().items():
        torch.testing.assert_close(resumed.tower.state_dict()[name], value, atol=0, rtol=0)


def test_global_generators_and_loggers_are_left_alone(
    planted: Callable[..., Samples], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    filters, level = list(warnings.filters), logging.getLogger("lightning.pytorch").level
    finetune(planted(16), changed(epochs=1), workdir=tmp_path, seed=0)
    torch.testing.assert_close(torch.rand(1), expected, atol=0, rtol=0)
    assert warnings.filters == filters
    assert logging.getLogger("lightning.pytorch").level == level
    assert capfd.readouterr() == ("", "")


def test_progress_is_shown_only_when_asked(
    planted: Callable[..., Samples], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    finetune(planted(16), changed(epochs=1), workdir=tmp_path, seed=0, progress=True)
    shown = "".join(capfd.readouterr())
    assert "decode" in shown
    assert "Epoch 0" in shown


def test_early_stopping_keeps_the_best_epoch(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    config = changed(epochs=30, patience=1, learning_rate=0.05, warmup_epochs=0)
    train, validation = planted(32), planted(16, seed=1)
    result = finetune(train, config, validation=validation, workdir=tmp_path, seed=0)
    assert result.epochs < 30
    again = finetune(train, config, validation=validation, workdir=tmp_path, seed=0)
    assert again.epochs == result.epochs, "a run that stopped early is finished"
    best = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert best["epoch"] == result.epochs - 2
    torch.testing.assert_close(
        result.tower.heads[0].weight.detach(), best["state_dict"]["tower.heads.0.weight"]
    )


def test_pictures_beyond_the_cache_give_the_same_tower_and_leave_no_file(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    train, validation = planted(16), planted(8, seed=1)
    results = [
        finetune(
            train,
            changed(epochs=1, cache_gb=gigabytes),
            validation=validation,
            workdir=tmp_path / name,
            seed=0,
        )
        for name, gigabytes in (("memory", 1.0), ("disk", 0.0))
    ]
    assert results[0].metrics == results[1].metrics
    assert [file.name for file in (tmp_path / "disk").iterdir()] == ["last.ckpt"]


def test_training_goes_on_without_unreadable_pictures(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    train, validation = planted(16), planted(8, seed=1)
    for samples in (train, validation):
        images_of(samples)[3].write_bytes(b"not a picture")
    result = finetune(train, changed(epochs=1), validation=validation, workdir=tmp_path, seed=0)
    assert [rejected.image.name for rejected in result.rejected] == ["3.png", "3.png"]
    assert "cannot be decoded" in result.rejected[0].reason


def test_a_batch_larger_than_the_shop_is_the_whole_shop(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    result = finetune(planted(5), changed(epochs=2), workdir=tmp_path, seed=0)
    assert result.epochs == 2
    assert result.metrics == {}
    assert all(torch.isfinite(value).all() for value in result.tower.state_dict().values())


def test_one_picture_is_too_few(planted: Callable[..., Samples], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="at least 2 readable pictures, got 1"):
        finetune(planted(1), CONFIG, workdir=tmp_path, seed=0)


def test_a_diverging_run_stops_and_names_the_pictures(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    config = changed(learning_rate=1e30, warmup_epochs=0, gradient_clip=1e30)
    with pytest.raises(TrainingError, match=r"loss must be finite, got .* on \d+\.png.*lower"):
        finetune(planted(32), config, workdir=tmp_path, seed=0)


def test_pretraining_runs_on_the_device_of_the_run(
    planted: Callable[..., Samples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[TrainingRun] = []

    def pretrain_run(images: Any, config: Any, run: TrainingRun, *, root: Path | None) -> None:
        runs.append(run)
        raise TrainingError("stop here")

    monkeypatch.setattr("vision.finetuning.pretrain_run", pretrain_run)
    config = changed(pretraining={"method": "byol", "epochs": 1, "batch_size": 8})
    run = TrainingRun(tmp_path, 7, torch.device("cuda", 1))
    with pytest.raises(TrainingError, match="stop here"):
        finetune_run(planted(16), config, run)
    (got,) = runs
    assert (got.workdir, got.seed, got.device) == (tmp_path / "pretraining", 7, run.device)


def test_a_damaged_checkpoint_is_replaced(planted: Callable[..., Samples], tmp_path: Path) -> None:
    wanted = finetune(planted(16), CONFIG, workdir=tmp_path / "whole", seed=0)
    (tmp_path / "last.ckpt").write_bytes(b"torn")
    found = finetune(planted(16), CONFIG, workdir=tmp_path, seed=0)
    assert found.epochs == wanted.epochs
    for name, values in wanted.tower.state_dict().items():
        torch.testing.assert_close(found.tower.state_dict()[name], values, rtol=0, atol=0)


def test_arguments_that_do_not_fit_are_an_error(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    train = planted(16)
    other = Samples([], {"colour": np.zeros(0, dtype=np.int64)}, {"colour": ["red"]})
    nothing = Samples(train.images, {}, {}, root=train.root)
    with pytest.raises(ValueError, match="at least one target, got none"):
        finetune(nothing, CONFIG, workdir=tmp_path, seed=0)
    with pytest.raises(ValueError, match="must have the targets and classes of the samples"):
        finetune(train, CONFIG, validation=other, workdir=tmp_path, seed=0)
    with pytest.raises(ValueError, match=r"targets of the samples \(colour, side.of it\), got"):
        finetune(train, changed(target_weights={"size": 1.0}), workdir=tmp_path, seed=0)
    with pytest.raises(ValueError, match="patience = 3 needs validation samples"):
        finetune(train, changed(patience=3), workdir=tmp_path, seed=0)


def test_a_start_that_cannot_be_built_is_refused_without_a_download(tmp_path: Path) -> None:
    classes = {"colour": ["red", "blue"]}
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"backbone": "resnet19"}, ValueError, "similar timm names: resnet18"),
        ({"pretrained": "nowhere/model.safetensors"}, WeightsError, "nor a hub id OWNER/NAME"),
        ({"pretrained": str(tmp_path / "torn.safetensors")}, WeightsError, "cannot be read"),
        ({"transfer": {"lora_rank": 2}}, ValueError, "lora_rank"),
    ]
    for changes, error, message in wrong:
        with pytest.raises(error, match=message):
            check_start(classes, changed(**changes))
    state = torch.get_rng_state()
    for fetched in (True, "owner/name"):
        check_start(classes, changed(pretrained=fetched))
    check_start(classes, changed(backbone="transformers/owner/name"))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "part",
    [
        {"transfer": {"frozen_stages": 2, "layer_decay": 0.7}},
        {"transfer": {"unfreeze_epochs": 1, "freeze_norms": True}},
        {"backbone": "test_vit", "transfer": {"lora_rank": 2}},
        {"backbone": "test_vit", "recompute": True, "accumulate": 2},
        {"objective": {"classifier": "focal", "class_weights": "effective_number"}},
        {"objective": {"classifier": "logit_adjusted", "target_weights": "learned"}},
        {"objective": {"metric": {"arcface": 0.5, "multi_similarity": 0.5}, "memory": 12}},
        {"objective": {"metric": {"supcon": 0.5}, "memory": 12}, "ema": 0.8},
        {"imbalance": {"sampling": "balanced", "target": "colour"}},
        {"adversarial": {"method": "pgd", "steps": 2}},
        {"policy": "randaugment", "mixup": 0.2, "cutmix": 1.0},
        {"pretraining": {"method": "byol", "epochs": 1, "batch_size": 8}},
    ],
    ids=lambda part: ", ".join(f"{k}={v}" for k, v in part.items())[:40],
)
def test_every_part_resumes_to_the_same_tower(
    part: dict[str, Any],
    planted: Callable[..., Samples],
    tmp_path: Path,
) -> None:
    samples = planted(16)
    config = changed(**{"epochs": 2, "batch_size": 8, **part})
    whole = finetune(samples, config, workdir=tmp_path / "whole", seed=0)

    place = TrainingRun(tmp_path / "cut", 0, torch.device("cpu"))
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        finetune_run(samples, config, place, callbacks=[Interrupt(1)])
    resumed = finetune(samples, config, workdir=tmp_path / "cut", seed=0)
    wanted = resumed.tower.state_dict()
    for name, value in whole.tower.state_dict().items():
        torch.testing.assert_close(wanted[name], value, atol=0, rtol=0)
    assert not any("lora" in name for name in wanted), "a tower knows nothing of how it was trained"


def test_frozen_weights_are_those_that_were_loaded(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    samples = planted(32)
    first = finetune(samples, CONFIG, workdir=tmp_path / "1", seed=0)
    save(first.tower, tmp_path / "tower")
    config = changed(
        pretrained=str(tmp_path / "tower"),
        epochs=1,
        transfer={"frozen_stages": "all"},
    )
    second = finetune(samples, config, workdir=tmp_path / "2", seed=1).tower
    for name, value in first.tower.backbone.state_dict().items():
        torch.testing.assert_close(second.backbone.state_dict()[name], value, atol=0, rtol=0)
    assert not torch.equal(second.heads[0].weight, first.tower.heads[0].weight)


def test_curves_have_loss_learning_rate_and_accuracy(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    config = changed(epochs=2, tracking={"logger": "csv"})
    finetune(planted(32), config, validation=planted(16, seed=1), workdir=tmp_path, seed=0)
    (curves,) = tmp_path.rglob("metrics.csv")
    columns = set(curves.read_text().splitlines()[0].split(","))
    assert {"training/loss", "validation/loss", "validation/accuracy/colour"} <= columns
    assert any(column.startswith("lr-") for column in columns)


def test_classes_with_one_picture_or_without_any_can_be_trained(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    whole = planted(32)
    colours = np.where(whole.targets["colour"] == 3, -1, whole.targets["colour"])
    colours[3] = 2  # with the others of its class unknown below
    colours[(colours == 2) & (np.arange(32) != 3)] = -1
    samples = Samples(
        whole.images, {**whole.targets, "colour": colours}, whole.classes, root=whole.root
    )
    for part in (
        {"imbalance": {"sampling": "balanced", "target": "colour"}},
        {"objective": {"classifier": "logit_adjusted", "class_weights": "balanced"}},
    ):
        config = changed(epochs=1, **part)
        # The validation has the class that training never saw: an error, not a crash.
        result = finetune(
            samples, config, validation=whole, workdir=tmp_path / next(iter(part)), seed=0
        )
        assert 0 <= result.metrics["accuracy/colour"] < 1
        assert np.isfinite(result.metrics["loss"])


def test_a_network_of_fixed_size_refuses_another_training_size(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    config = changed(backbone="test_vit3", start_size=16)
    with pytest.raises(ValueError, match="size 16 does not fit backbone 'test_vit3'"):
        finetune(planted(16), config, workdir=tmp_path, seed=0)
