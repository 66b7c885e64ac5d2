import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recsys.models.gallery import (
    best_and_lead,
    build_prototypes,
    fit_calibration,
    product_similarities,
)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_a_product_is_as_similar_as_the_closer_of_picture_and_photos() -> None:
    queries, items, prototypes = unit(3, 4), unit(5, 4, seed=1), unit(2, 4, seed=2)
    rows = torch.tensor([3, 0])
    found = product_similarities(queries, items, prototypes, rows)
    for q in range(3):
        for item in range(5):
            wanted = float(queries[q] @ items[item])
            for p, row in enumerate(rows.tolist()):
                if row == item:
                    wanted = max(wanted, float(queries[q] @ prototypes[p]))
            assert float(found[q, item]) == pytest.approx(wanted, abs=1e-6)


def test_without_photos_the_pictures_alone_count() -> None:
    queries, items = unit(3, 4), unit(5, 4, seed=1)
    found = product_similarities(
        queries, items, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    )
    assert torch.allclose(found, queries @ items.T)


def test_a_prototype_is_the_unit_mean_of_its_photos() -> None:
    photos = unit(4, 3)
    prototypes, rows = build_prototypes(photos, torch.tensor([7, 2, 7, 7]))
    assert rows.tolist() == [2, 7]
    assert torch.allclose(prototypes[0], photos[1])
    assert torch.allclose(prototypes[1], F.normalize(photos[[0, 2, 3]].sum(0), dim=0))


def test_the_lead_is_the_gap_to_the_second() -> None:
    best, lead = best_and_lead(torch.tensor([[0.1, 0.9, 0.6]]))
    assert best.item() == pytest.approx(0.9)
    assert lead.item() == pytest.approx(0.3)


def test_a_single_product_has_no_lead() -> None:
    assert best_and_lead(torch.tensor([[0.4]]))[1].item() == 0.0


def planted(n_photos: int = 400, noise: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    items = unit(30, 16)
    rows = torch.from_numpy(np.random.default_rng(0).integers(0, 30, n_photos))
    photos = F.normalize(items[rows] + noise * unit(n_photos, 16, seed=3) * 4, dim=1)
    return photos @ items.T, rows


def test_calibration_tells_known_from_unknown_products_on_planted_photos() -> None:
    similarities, rows = planted()
    calibration = fit_calibration(similarities, rows)
    known = calibration.known_probability(*best_and_lead(similarities))
    hidden = similarities.scatter(1, rows[:, None], -1.0)
    unknown = calibration.known_probability(*best_and_lead(hidden))
    assert (known >= calibration.threshold).float().mean() > 0.9
    assert (unknown < calibration.threshold).float().mean() > 0.9


def test_known_probabilities_are_calibrated_on_average() -> None:
    similarities, rows = planted(noise=0.3)
    calibration = fit_calibration(similarities, rows)
    hidden = similarities.scatter(1, rows[:, None], -1.0)
    both = torch.cat([similarities, hidden])
    # A logistic regression with a bias reproduces the base rate, one half here.
    mean = calibration.known_probability(*best_and_lead(both)).mean().item()
    assert mean == pytest.approx(0.5, abs=0.02)


def test_calibration_without_photos_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one photo and two products"):
        fit_calibration(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
