"""A backbone learns from pictures alone, and an interrupted run ends as an uninterrupted one."""

import csv
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from transformers import ViTConfig, ViTModel

from vision import pretrain as pretrain_module
from vision.config import VisionConfig
from vision.dataset import Samples
from vision.errors import TrainingError
from vision.networks.backbones import Backbone, build_backbone
from vision.pretrain import PretrainResult, pretrain
from vision.training.callbacks import build_callbacks
from vision.transforms import build_eval_transform

CONFIG = VisionConfig.model_validate(
    {
        "backbone": "test_resnet",
        "pretrained": False,
        "size": 32,
        "precision": "32-true",
        "pretraining": {
            "epochs": 20,
            "batch_size": 32,
            "warmup_epochs": 1,
            "learning_rate": 2e-3,
            "momentum": 0.9,
            "hidden": 64,
            "dim": 32,
        },
    }
)


def changed(pretraining: dict[str, Any] | None = None, **changes: Any) -> VisionConfig:
    fields = CONFIG.model_dump()
    fields["pretraining"].update(pretraining or {})
    return VisionConfig.model_validate({**fields, **changes})


def build(pretrained: bool | str) -> Backbone:
    torch.manual_seed(0)
    return build_backbone("test_resnet", pretrained=pretrained, size=32)


def features(backbone: Backbone, images: list[Path]) -> torch.Tensor:
    transform = build_eval_transform(backbone.preprocess)
    pictures = torch.stack([transform(Image.open(image)) for image in images])
    with torch.inference_mode():
        read: torch.Tensor = backbone.network.eval()(pictures)
    return read


def neighbours_of_a_kind(backbone: Backbone, images: list[Path], kinds: NDArray[Any]) -> float:
    """Return the share of every picture's 15 nearest that are of its kind; chance is a half."""
    unit = nn.functional.normalize(features(backbone, images))
    nearest = (unit @ unit.T).fill_diagonal_(-1.0).topk(15).indices.numpy()
    return float((kinds[nearest] == kinds[:, None]).mean())


@pytest.fixture(scope="module")
def tinted(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], NDArray[Any]]:
    """Grey squares on grey with a touch of red or of blue, which brightness drowns."""
    folder = tmp_path_factory.mktemp("tinted")
    rng, kinds = np.random.default_rng(0), np.arange(64) % 2
    images = [folder / f"{row}.png" for row in range(64)]
    for image, kind in zip(images, kinds, strict=True):
        pixels = np.full((40, 40, 3), rng.integers(30, 200))
        side = rng.integers(10, 30)
        top, left = rng.integers(0, 40 - side, 2)
        pixels[top : top + side, left : left + side] = rng.integers(30, 200)
        pixels[..., 0 if kind else 2] += 16
        Image.fromarray(pixels.astype(np.uint8)).save(image)
    return images, kinds


@pytest.mark.parametrize("method", ["simclr", "byol"])
@pytest.mark.slow
def test_kinds_are_separated_better_than_by_a_random_backbone(
    method: str, tinted: tuple[list[Path], NDArray[Any]], tmp_path: Path
) -> None:
    images, kinds = tinted
    config = changed({"method": method})
    result = pretrain(images, config, workdir=tmp_path, seed=0)
    assert result.epochs == len(result.losses) == len(result.spread) == 20
    assert result.rejected == ()
    assert np.mean(result.losses[-3:]) < 0.9 * result.losses[0]
    assert min(result.spread) > 0.5, "nothing collapsed"
    random, learned = build(False), build(str(result.folder))
    before = neighbours_of_a_kind(random, images, kinds)
    assert neighbours_of_a_kind(learned, images, kinds) > before + 0.08

    saved = (tmp_path / "last.ckpt").stat().st_mtime_ns
    again = pretrain(images, config, workdir=tmp_path, seed=0)
    assert again == result
    assert (tmp_path / "last.ckpt").stat().st_mtime_ns == saved, "a finished run is not trained"
    assert torch.equal(features(build(str(again.folder)), images), features(learned, images))


class Interrupt(Callback):
    """The power goes after an epoch."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("method", "backbone"), [("simclr", "test_resnet"), ("byol", "test_convnext")]
)
def test_a_resumed_run_ends_as_an_uninterrupted_one(
    method: str,
    backbone: str,
    planted: Callable[..., Samples],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    samples = planted(24)
    plan = {"method": method, "epochs": 3, "batch_size": 8}
    config = changed(plan, backbone=backbone, drop_path=0.2)

    def run(workdir: str) -> PretrainResult:
        return pretrain(
            samples.images, config, workdir=tmp_path / workdir, seed=5, root=samples.root
        )

    whole = run("whole")
    with monkeypatch.context() as patch:
        patch.setattr(
            pretrain_module,
            "build_callbacks",
            lambda *arguments: [*build_callbacks(*arguments), Interrupt()],
        )
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run("halves")
    assert not (tmp_path / "halves" / "backbone").exists(), "nothing is written half-trained"
    # Whatever else draws from the global generator in between must not matter.
    torch.manual_seed(99)
    resumed = run("halves")
    assert (resumed.losses, resumed.spread) == (whole.losses, whole.spread)
    ends = [torch.load(tmp_path / name / "last.ckpt") for name in ("whole", "halves")]
    states = [end["state_dict"] for end in ends]
    assert any(name.startswith("method.target.") for name in states[0]) == (method == "byol")
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, atol=0, rtol=0)
    written = [result.folder / "model.safetensors" for result in (whole, resumed)]
    assert written[0].read_bytes() == written[1].read_bytes()


def test_the_averaged_weights_lag_behind_the_network(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    samples = planted(16)
    config = changed({"method": "byol", "epochs": 2, "batch_size": 8})
    pretrain(samples.images, config, workdir=tmp_path, seed=0, root=samples.root)
    state = torch.load(tmp_path / "last.ckpt")["state_dict"]
    for name, start in build(False).network.named_parameters():
        followed = (state[f"method.target.0.{name}"] - start).norm()
        assert 0 < followed < (state[f"method.encoder.0.{name}"] - start).norm()


def test_the_checkpoint_is_a_backbone_like_any_other(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    samples = planted(8)
    plan = {"epochs": 1, "batch_size": 8}
    first = pretrain(
        samples.images, changed(plan), workdir=tmp_path / "first", seed=0, root=samples.root
    )
    names = sorted(file.name for file in first.folder.iterdir())
    assert names == ["backbone.json", "model.safetensors"]
    # Pretraining goes on from it just as fine-tuning does.
    config = changed({**plan, "learning_rate": 1e-30}, pretrained=str(first.folder))
    second = pretrain(
        samples.images, config, workdir=tmp_path / "second", seed=1, root=samples.root
    )
    one, other = (build(str(result.folder)).network for result in (first, second))
    for name, value in one.named_parameters():
        torch.testing.assert_close(other.get_parameter(name), value)


def test_a_transformers_backbone_loads_its_own_weights(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    samples = planted(8)
    vit = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
    )
    ViTModel(vit).save_pretrained(tmp_path / "vit")
    (tmp_path / "vit" / "preprocessor_config.json").write_text(
        '{"image_processor_type": "ViTImageProcessor"}', encoding="utf-8"
    )
    name = f"transformers/{tmp_path / 'vit'}"
    config = changed({"epochs": 1, "batch_size": 8}, backbone=name)
    result = pretrain(samples.images, config, workdir=tmp_path, seed=0, root=samples.root)
    state = torch.load(tmp_path / "last.ckpt")["state_dict"]
    loaded = build_backbone(name, pretrained=str(result.folder), size=32).network.state_dict()
    for key, value in loaded.items():
        torch.testing.assert_close(value, state[f"method.encoder.0.{key}"], atol=0, rtol=0)


def test_the_checkpoint_of_another_run_is_refused(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    samples = planted(8)
    config = changed({"epochs": 1, "batch_size": 8})
    pretrain(samples.images, config, workdir=tmp_path, seed=0, root=samples.root)
    for images, other, seed in (
        (samples.images, config, 1),
        (samples.images[:7], config, 0),
        (samples.images, changed({"epochs": 2, "batch_size": 8}), 0),
        (samples.images, changed({"epochs": 1, "batch_size": 8}, drop_path=0.1), 0),
    ):
        with pytest.raises(TrainingError, match=r"last\.ckpt is of a run with other data"):
            pretrain(images, other, workdir=tmp_path, seed=seed, root=samples.root)
    # What only fine-tuning reads may change.
    fine = config.model_copy(update={"learning_rate": 0.5, "epochs": 7, "batch_size": 2})
    assert pretrain(samples.images, fine, workdir=tmp_path, seed=0, root=samples.root).epochs == 1


def test_pretraining_goes_on_without_unreadable_pictures(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    samples = planted(8)
    assert samples.root is not None
    (samples.root / "3.png").write_bytes(b"not a picture")
    config = changed({"epochs": 1, "batch_size": 8})
    result = pretrain(samples.images, config, workdir=tmp_path, seed=0, root=samples.root)
    assert [rejected.image.name for rejected in result.rejected] == ["3.png"]
    assert "cannot be decoded" in result.rejected[0].reason
    with pytest.raises(TrainingError, match="at least 2 readable pictures, got 1"):
        pretrain(samples.images[2:4], config, workdir=tmp_path / "few", seed=0, root=samples.root)


def test_pictures_beyond_the_cache_give_the_same_weights_and_leave_no_file(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    samples, results = planted(8), []
    for name, gigabytes in (("memory", 1.0), ("disk", 0.0)):
        config = changed({"epochs": 1, "batch_size": 4}, cache_gb=gigabytes)
        workdir = tmp_path / name
        results.append(pretrain(samples.images, config, workdir=workdir, seed=0, root=samples.root))
    assert results[0].losses == results[1].losses
    assert sorted(file.name for file in (tmp_path / "disk").iterdir()) == ["backbone", "last.ckpt"]


def test_a_diverging_run_stops_and_names_the_pictures(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    plan = {"epochs": 9, "batch_size": 8, "learning_rate": 1e30, "warmup_epochs": 0}
    config, samples = changed(plan, gradient_clip=1e30), planted(16)
    with pytest.raises(TrainingError, match=r"loss must be finite, got .* on \d+\.png.*lower"):
        pretrain(samples.images, config, workdir=tmp_path, seed=0, root=samples.root)


# Lightning's advice on curves of single steps; these have a point an epoch.
def test_curves_are_written_where_tracking_says(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    samples = planted(8)
    config = changed({"epochs": 2, "batch_size": 8}, tracking={"logger": "csv"})
    result = pretrain(samples.images, config, workdir=tmp_path, seed=0, root=samples.root)
    table = (tmp_path / "pretrain-0" / "version_0" / "metrics.csv").read_text(encoding="utf-8")
    rows = [row for row in csv.DictReader(table.splitlines()) if row["pretraining/loss"]]
    assert [float(row["pretraining/loss"]) for row in rows] == pytest.approx(result.losses)
    assert [float(row["pretraining/spread"]) for row in rows] == pytest.approx(result.spread)


def test_a_collapse_is_logged(
    planted: Callable[..., Samples],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    samples = planted(8)
    config = changed({"epochs": 1, "batch_size": 8})
    monkeypatch.setattr(pretrain_module, "COLLAPSED", 1.1)
    with caplog.at_level(logging.WARNING):
        pretrain(samples.images, config, workdir=tmp_path, seed=0, root=samples.root)
    assert "nearly the same (spread 0." in caplog.text


def test_global_generators_are_left_alone(
    planted: Callable[..., Samples], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    samples = planted(8)
    config = changed({"epochs": 1, "batch_size": 8})
    pretrain(samples.images, config, workdir=tmp_path, seed=0, root=samples.root)
    torch.testing.assert_close(torch.rand(1), expected, atol=0, rtol=0)
    assert capfd.readouterr() == ("", "")


def test_a_configuration_without_pretraining_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.pretraining must say how .* got None"):
        pretrain([], VisionConfig(), workdir=tmp_path, seed=0)
