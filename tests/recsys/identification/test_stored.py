import json

import torch

from recsys.identification.calibration import Calibration
from recsys.identification.evidence import PHOTOS, Gallery, Photos, collect_evidence
from recsys.identification.groups import OperatingPoint
from recsys.identification.stored import (
    Identification,
    describe,
    restore,
    restore_prototypes,
)


def test_an_identification_comes_back_from_tensors_and_json() -> None:
    rows = torch.arange(2)
    gallery = Gallery(torch.eye(2), rows, torch.eye(2), rows, head_rows=rows)
    calibration = Calibration(
        (1.0, 2.0, 3.0, 4.0),
        (0.1, 0.2, 0.3, 0.4),
        0.5,
        known=OperatingPoint(0.6, 0.96, 0.8),
        answers=OperatingPoint(None, 0.9, 0.0),
        wanted_precision=0.95,
        unknown_share=0.1,
        error=0.02,
        n_photos=7,
    )
    identification = Identification(gallery, calibration, head="item", views="crops")
    found = restore(vars(gallery), json.loads(json.dumps(describe(identification))))
    assert found == identification


def test_a_bundle_of_prototypes_is_read_as_photos_of_each_product() -> None:
    tensors = {"prototypes": torch.eye(3)[:2], "rows": torch.tensor([1, 0])}
    calibration = {
        "temperature": 0.1,
        "known_weights": [10.0, 5.0],
        "known_bias": -6.0,
        "threshold": 0.7,
    }
    found = restore_prototypes(tensors, calibration)
    photos = Photos(torch.eye(3)[:1], torch.zeros(1, 0))
    evidence = collect_evidence(photos, torch.eye(3), found.gallery)
    assert evidence.values[0, :, PHOTOS].tolist() == [0.0, 1.0, 0.0]
    probabilities = found.calibration.probabilities(evidence)
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(1))
    assert found.head is None
    assert found.views == "one"
