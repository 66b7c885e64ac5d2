"""Train on planted pictures under torchrun; process 0 writes the result."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

from vision.checkpoint import save
from vision.config import VisionConfig
from vision.dataset import Samples
from vision.finetuning import finetune

task, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
torch.set_num_threads(1)
samples = Samples(
    images=[Path(image) for image in task["images"]],
    targets={name: np.array(values, dtype=np.int64) for name, values in task["targets"].items()},
    classes=task["classes"],
    root=Path(task["root"]),
)
config = VisionConfig.model_validate(task["config"])
result = finetune(samples, config, validation=samples, workdir=out, seed=0, device="cpu")
if os.environ["RANK"] == "0":
    save(result.tower, out / "tower")
    (out / "metrics.json").write_text(json.dumps(result.metrics))
