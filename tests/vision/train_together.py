"""Train on planted pictures under torchrun; process 0 writes what came of it."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

from vision.config import VisionConfig
from vision.dataset import Samples
from vision.finetune import finetune

told, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
torch.set_num_threads(1)
samples = Samples(
    images=[Path(image) for image in told["images"]],
    targets={name: np.array(values, dtype=np.int64) for name, values in told["targets"].items()},
    classes=told["classes"],
    root=Path(told["root"]),
)
extra = {} if told["losses"] == "heads" else {"objective": {"metric": {"supcon": 0.5}}}
config = VisionConfig.model_validate(
    {
        # Normalises every picture by itself, so that sharing a batch changes no statistics.
        "backbone": "test_vit",
        "size": 32,
        "dim": 8,
        "epochs": 2,
        "batch_size": 16,
        "embedding_weight": 0.0 if told["losses"] == "heads" else 0.5,
        "precision": "32-true",
        "augmentation": "strong",
        "policy": "trivialaugment",
        **extra,
    }
)
result = finetune(samples, config, validation=samples, workdir=out, seed=0, device="cpu")
if os.environ["RANK"] == "0":
    answer = {"metrics": result.metrics, "weights": result.tower.state_dict()}
    torch.save(answer, out / "answer.pt")
