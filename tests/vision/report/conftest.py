"""A tower that recognises the planted colours: a random network with a fitted head."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from vision.dataset import Samples
from vision.images import load
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower
from vision.transforms import build_eval_transform


@pytest.fixture(scope="session")
def tower(planted: Callable[..., Samples]) -> VisionTower:
    torch.manual_seed(0)
    train = planted(80, seed=7)
    tower = VisionTower(build_backbone("test_resnet", size=32), dim=8, classes=train.classes)
    transform = build_eval_transform(tower.preprocess)
    images = torch.stack([transform(load(image, train.root)) for image in train.images])
    with torch.no_grad():
        tower.train()
        for _ in range(20):  # fills the statistics of the batch norms
            tower(images)
        features = tower.eval().backbone(images)
        features = torch.cat([features, torch.ones(len(images), 1)], dim=1)
        colours = 5.0 * torch.eye(4)[torch.from_numpy(np.asarray(train.targets["colour"]))]
        solved = torch.linalg.lstsq(features, colours).solution
        head = tower.heads[0]
        assert isinstance(head, nn.Linear)
        head.weight.copy_(solved[:-1].T)
        head.bias.copy_(solved[-1])
    return tower
