"""What an average of the weights holds after training: weights and statistics, and no counters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from vision.config import VisionConfig
from vision.dataset import Samples
from vision.finetuning import finetune_run
from vision.training.run import TrainingRun

DECAY = 0.6  # reached after 13 steps


class Recorder(Callback):
    """Keeps what is trained after every step, before it is averaged."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        state = pl_module.tower.state_dict()
        self.states.append({name: value.clone() for name, value in state.items()})


def test_weights_and_statistics_are_averaged_and_counters_are_copied(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    config = VisionConfig(
        backbone="test_resnet",
        pretrained=False,
        size=32,
        dim=8,
        epochs=5,
        batch_size=8,
        ema=DECAY,
        augmentation="none",
        precision="32-true",
    )
    recorder = Recorder()
    place = TrainingRun(tmp_path, 0, torch.device("cpu"))
    result = finetune_run(planted(32), config, place, callbacks=[recorder])
    wanted = dict(recorder.states[0])
    for count, state in enumerate(recorder.states[1:], start=1):
        share = min(DECAY, (1 + count) / (10 + count))
        for name, value in state.items():
            floating = value.is_floating_point()
            wanted[name] = share * wanted[name] + (1 - share) * value if floating else value
    assert len(recorder.states) == 20
    torch.testing.assert_close(result.tower.state_dict(), wanted)
    counters = [name for name in wanted if name.endswith("num_batches_tracked")]
    assert {int(wanted[name]) for name in counters} == {20}
    running = next(name for name in wanted if name.endswith("running_mean"))
    assert not torch.allclose(wanted[running], recorder.states[-1][running])
