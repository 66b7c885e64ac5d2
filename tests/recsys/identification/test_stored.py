import json
import math
from pathlib import Path

import pytest
import torch

from recsys.identification.calibration import Calibration, OperatingPoint
from recsys.identification.evidence import (
    PHOTOS,
    SOURCES,
    Evidence,
    Gallery,
    Photos,
    collect_evidence,
)
from recsys.identification.stored import (
    IdentificationPart,
    NearestCalibration,
    describe,
    read_words,
    restore,
    restore_prototypes,
    write_words,
)

NEAREST = NearestCalibration(0.1, (10.0, 5.0), -6.0, 0.7)


def test_the_part_comes_back_from_tensors_and_json() -> None:
    rows = torch.arange(2)
    gallery = Gallery(torch.eye(2), rows, torch.eye(2), rows, head_rows=rows)
    calibration = Calibration(
        tuple(float(n) for n in range(len(SOURCES))),
        tuple(n / 10 for n in range(len(SOURCES))),
        0.5,
        known=OperatingPoint(0.6, 0.96, 0.8),
        named=OperatingPoint(None, 0.9, 0.0),
        wanted_precision=0.95,
        unknown_share=0.1,
        error=0.02,
        n_photos=7,
    )
    part = IdentificationPart(
        gallery, calibration, head="item", views="crops", why_no_words="they do not help"
    )
    assert part.sentence().endswith("; words on photos are not read: they do not help")
    found = restore(vars(gallery), json.loads(json.dumps(describe(part))))
    assert found == part


def test_words_of_pictures_stay_where_those_of_photos_do_not_count() -> None:
    rows, point = torch.arange(2), OperatingPoint(0.6)
    gallery = Gallery(torch.eye(2), rows, torch.eye(2), rows, head_rows=rows)
    n = len(SOURCES)
    calibration = Calibration((1.0,) * n, (0.1,) * n, 0.5, known=point, named=point)
    part = IdentificationPart(gallery, calibration, words={"a": ("ARLA",)})
    described = describe(part)
    assert not restore(vars(gallery), described, {"a": ("ARLA",)}).reads_words
    del described["reads_words"]  # as in older bundles, which keep words that count
    assert restore(vars(gallery), described, {}).reads_words
    assert not restore(vars(gallery), described).reads_words


def test_words_come_back_and_an_empty_table_is_not_a_missing_one(tmp_path: Path) -> None:
    words = {"a": ("ARLA", "0.5% FETT"), "b": ()}
    for number, wanted in enumerate((words, {})):
        write_words(wanted, tmp_path / f"{number}.parquet")
        assert read_words(tmp_path / f"{number}.parquet") == wanted
    assert read_words(tmp_path / "missing.parquet") is None


def test_a_source_that_an_older_bundle_lacks_has_no_weight() -> None:
    rows = torch.arange(2)
    gallery = Gallery(torch.eye(2), rows, torch.eye(2), rows, head_rows=rows)
    point = OperatingPoint(0.6)
    older = Calibration((1.0,) * 3, (0.1,) * 3, 0.5, known=point, named=point)
    found = restore(vars(gallery), describe(IdentificationPart(gallery, older)))
    values = torch.rand(4, 2, len(SOURCES))
    present = torch.ones_like(values, dtype=torch.bool)
    others = values.clone()
    others[..., 3:] = torch.rand(4, 2, len(SOURCES) - 3)
    probabilities = found.calibration.probabilities(Evidence(values, present))
    assert torch.equal(probabilities, found.calibration.probabilities(Evidence(others, present)))


def test_bundles_keep_the_keys_that_older_releases_read() -> None:
    rows = torch.arange(2)
    gallery = Gallery(torch.eye(2), rows, torch.eye(2), rows, head_rows=rows)
    known, named = OperatingPoint(0.6), OperatingPoint(0.7)
    calibration = Calibration((1.0,) * 4, (0.1,) * 4, 0.5, known=known, named=named)
    description = describe(IdentificationPart(gallery, calibration))
    assert list(description["calibration"]) == [
        "weights",
        "pivots",
        "unknown",
        "known",
        "answers",
        "wanted_precision",
        "unknown_share",
        "error",
        "n_photos",
    ]
    assert description["calibration"]["answers"]["threshold"] == 0.7


def test_an_older_bundles_prototypes_are_read_as_photos_of_each_product() -> None:
    tensors = {"prototypes": torch.eye(3)[:2], "rows": torch.tensor([1, 0])}
    calibration = {
        "temperature": 0.1,
        "known_weights": [10.0, 5.0],
        "known_bias": -6.0,
        "threshold": 0.7,
    }
    found = restore_prototypes(tensors, calibration)
    photos = Photos(torch.eye(3)[:1], torch.zeros(1, 0), torch.zeros(1, 0))
    evidence = collect_evidence(photos, torch.eye(3), found.gallery)
    assert evidence.values[0, :, PHOTOS].tolist() == [0.0, 1.0, 0.0]
    probabilities = found.calibration.probabilities(evidence)
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(1))
    assert found.head is None
    assert found.views == "one"


def test_nearest_probabilities_are_those_of_the_closer_of_item_and_prototype() -> None:
    values = torch.tensor([[[0.0, 0.5, 0.8, 0.0], [0.0, 0.6, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]])
    present = torch.tensor([[[False, True, True, False], [False, True, False, False], [False] * 4]])
    found = NEAREST.probabilities(Evidence(values, present))[0]
    known = 1 / (1 + math.exp(-(10 * 0.8 + 5 * 0.2 - 6)))
    first = math.exp(8) / (math.exp(8) + math.exp(6))
    assert found.tolist() == pytest.approx([known * first, known * (1 - first), 0, 1 - known])


def test_the_nearest_of_a_single_product_has_no_lead() -> None:
    values = torch.tensor([[[0.0, 0.6, 0.0, 0.0]]])
    found = NEAREST.probabilities(Evidence(values, values > 0))[0]
    assert found.tolist() == pytest.approx([0.5, 0.5])


def test_the_nearest_names_no_product_because_its_precision_was_not_measured() -> None:
    assert NEAREST.known.threshold == 0.7
    assert not NEAREST.named.passes(1.0)
