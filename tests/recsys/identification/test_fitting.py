import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.errors import InvalidArgumentError
from recsys.identification.calibration import Calibration, utilities
from recsys.identification.evidence import HEAD, ITEM, PHOTOS, PICTURE, SOURCES, WORDS, Evidence
from recsys.identification.fitting import fit_calibration, take_evenly
from recsys.identification.groups import choose, likely_sets

N_ITEMS = 30
ANCESTORS = torch.arange(N_ITEMS)[:, None] // 5  # categories of five siblings


def drawn(n_photos: int = 300, *, noise: float = 0.12, seed: int = 0) -> tuple[Evidence, Tensor]:
    """Return photos whose product PICTURE shows clearly, PHOTOS a little and ITEM not at all.

    Siblings look alike: their cosines are higher than those of other products.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(N_ITEMS, (n_photos,), generator=generator)
    own = F.one_hot(rows, N_ITEMS).float()
    alike = (ANCESTORS[rows] == ANCESTORS[:, 0]).float()
    values = noise * torch.randn(n_photos, N_ITEMS, WORDS, generator=generator)
    values = F.pad(values, (0, len(SOURCES) - WORDS))
    values[..., PICTURE] += 0.3 * own + 0.3 * alike
    values[..., PHOTOS] += 0.1 * own
    present = torch.ones_like(values, dtype=torch.bool)
    present[..., HEAD:] = False
    values = values.masked_fill(~present, 0.0)
    return Evidence(values, present), rows


def fitted(evidence: Evidence, rows: Tensor, *, precision: float = 0.95) -> Calibration:
    return fit_calibration(evidence, rows, ANCESTORS, precision=precision, unknown_share=0.1)


def removed(evidence: Evidence, rows: Tensor) -> Evidence:
    """Return the evidence with the product of each photo removed from the catalogue."""
    own = F.one_hot(rows, N_ITEMS).bool()[..., None]
    return evidence.without(own.expand_as(evidence.present))


def test_a_useless_source_weighs_little_beside_a_useful_one() -> None:
    calibration = fitted(*drawn())
    assert calibration.weights[PICTURE] > 10 * calibration.weights[ITEM]
    assert all(weight > 0 for weight in calibration.weights)


def test_planted_weights_are_found() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(1_500, N_ITEMS, len(SOURCES), generator=generator).double()
    values[..., PHOTOS:] = 0.0
    present = torch.ones_like(values, dtype=torch.bool)
    present[..., PHOTOS:] = False
    planted = torch.tensor([2.0, 0.5, *(1.0,) * (len(SOURCES) - 2)]).double()
    logits = utilities(
        Evidence(values, present),
        planted,
        torch.zeros(len(SOURCES)).double(),
        torch.tensor(-100.0).double(),
    )
    rows = torch.multinomial(logits[:, :-1].softmax(dim=1), 1, generator=generator)[:, 0]
    evidence = Evidence(values, present)
    calibration = fitted(evidence, rows)
    assert calibration.weights[PICTURE] == pytest.approx(2.0, rel=0.15)
    assert calibration.weights[ITEM] == pytest.approx(0.5, rel=0.25)


def test_the_most_probable_product_of_fresh_photos_is_right_as_often_as_its_probability() -> None:
    calibration = fitted(*drawn())
    evidence, rows = drawn(2_000, seed=1)
    best = calibration.probabilities(evidence)[:, :-1].max(dim=1)
    right = (best.indices == rows).float()
    # The probabilities expect one photo in ten to show something else; here none does.
    assert best.values.mean().item() == pytest.approx(right.mean().item(), abs=0.1)
    assert calibration.error is not None
    assert calibration.error < 0.05


def named(calibration: Calibration, evidence: Evidence, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return for which photos a product or a group is named, and for which it is correct (B,).

    Args:
        calibration: Calibration with a threshold for naming.
        evidence: Evidence of B photos.
        rows: Item row of the product on each photo; -1 for a product outside the catalogue.
    """
    threshold = calibration.named.threshold
    assert threshold is not None
    sets = likely_sets(calibration.probabilities(evidence)[:, :-1], ANCESTORS)
    answered, correct = [], []
    for n, (level, size) in enumerate(zip(*choose(sets, threshold), strict=True)):
        answered.append(bool(size))
        correct.append(int(rows[n]) in sets.rows[n, level, :size].tolist())
    return torch.tensor(answered), torch.tensor(correct)


def with_strangers(strangers: Evidence, *, seed: int = 1) -> tuple[Evidence, Tensor]:
    """Return 1800 fresh photos, followed by strangers with row -1."""
    known, rows = drawn(1_800, seed=seed)
    both = Evidence(*(torch.cat(parts) for parts in zip(known, strangers, strict=True)))
    return both, torch.cat([rows, torch.full((len(strangers.values),), -1)])


def test_the_wanted_precision_holds_on_fresh_photos_of_known_and_unknown_products() -> None:
    calibration = fitted(*drawn(600))
    answered, correct = named(calibration, *with_strangers(removed(*drawn(200, seed=2))))
    assert correct[answered].double().mean() > 0.93
    assert calibration.named.coverage is not None
    coverage = float(answered.double().mean())
    assert coverage == pytest.approx(calibration.named.coverage, abs=0.1)


def test_the_precision_holds_for_strangers_only_when_fitted_on_products_nothing_has_met() -> None:
    def lookalikes(evidence: Evidence, rows: Tensor) -> Evidence:
        """Return evidence of a network that never learned to separate products from siblings."""
        values = evidence.values.clone()
        sibling = (rows + 1) % 5 + rows // 5 * 5
        values[torch.arange(len(rows)), sibling, PICTURE] += 0.3
        return Evidence(values, evidence.present)

    def precision(calibration: Calibration) -> float:
        answered, correct = named(calibration, *asked)
        return float(correct[answered].double().mean())

    evidence, rows = drawn(600)
    others, theirs = drawn(200, seed=2)
    asked = with_strangers(removed(lookalikes(others, theirs), theirs))
    careful = fit_calibration(
        evidence,
        rows,
        ANCESTORS,
        precision=0.93,
        unknown_share=0.1,
        unmet=lookalikes(evidence, rows),
    )
    careless = fitted(evidence, rows, precision=0.93)
    assert precision(careful) > 0.915
    assert precision(careless) < 0.915


def test_photos_of_unknown_products_are_less_probably_in_the_catalogue() -> None:
    calibration = fitted(*drawn())
    evidence, rows = drawn(500, seed=1)
    inside = 1 - calibration.probabilities(evidence)[:, -1]
    outside = 1 - calibration.probabilities(removed(evidence, rows))[:, -1]
    assert (inside[:, None] > outside).float().mean() > 0.85


def test_a_product_just_added_competes_with_those_that_have_labelled_photos() -> None:
    evidence, rows = drawn()
    calibration = fitted(evidence, rows)
    fresh, truth = drawn(500, seed=1)
    own_photos = torch.zeros_like(fresh.present)
    own_photos[torch.arange(500), truth, PHOTOS] = True
    just_added = fresh.without(own_photos)
    known = (calibration.probabilities(fresh).argmax(dim=1) == truth).float().mean()
    added = (calibration.probabilities(just_added).argmax(dim=1) == truth).float().mean()
    assert added > 0.85 * known


def test_a_handful_of_photos_gives_no_threshold_and_leaves_weights_near_the_prior() -> None:
    calibration = fitted(*drawn(5))
    assert calibration.named.threshold is None
    assert calibration.named.precision is not None
    assert calibration.named.precision < 0.95
    assert calibration.weights[HEAD] == pytest.approx(1.0, rel=0.05)  # no photo has this source


def test_a_lower_wanted_precision_names_products_more_often() -> None:
    evidence, rows = drawn(noise=0.2)
    strict, lax = (fitted(evidence, rows, precision=one).named for one in (0.95, 0.7))
    assert lax.coverage is not None
    assert lax.coverage > (strict.coverage or 0.0)
    assert lax.precision is not None
    assert lax.precision >= 0.7


def test_a_product_without_any_source_has_probability_zero() -> None:
    evidence, rows = drawn(50)
    present = evidence.present.clone()
    present[:, 7] = False
    evidence = Evidence(evidence.values.masked_fill(~present, 0.0), present)
    calibration = fitted(evidence, rows)  # some of these photos show product 7
    assert not calibration.probabilities(evidence)[:, 7].any()
    assert all(math.isfinite(weight) for weight in calibration.weights)


def test_a_sample_is_evenly_spaced_and_as_large_as_memory_allows() -> None:
    chosen = take_evenly(np.arange(1_000), n_items=50_000, max_cells=10_000_000)
    assert len(chosen) == 200
    assert chosen[0] == 0
    assert chosen[-1] == 999
    assert set(np.diff(chosen).tolist()) == {5, 6}
    assert take_evenly(np.arange(7), n_items=50).tolist() == list(range(7))


def test_calibration_without_photos_is_refused() -> None:
    evidence, rows = drawn(4)
    with pytest.raises(InvalidArgumentError, match="one photo and two products, got 0 photos"):
        fitted(evidence.take(rows < 0), rows[:0])


def test_calibration_of_a_single_product_is_refused() -> None:
    one = Evidence(torch.ones(3, 1, len(SOURCES)), torch.ones(3, 1, len(SOURCES)).bool())
    with pytest.raises(InvalidArgumentError, match="got 3 photos and 1 products"):
        fitted(one, torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize("name", ["precision", "unknown_share"])
def test_a_share_outside_0_to_1_is_refused(name: str) -> None:
    shares = {"precision": 0.95, "unknown_share": 0.1} | {name: 95}
    with pytest.raises(InvalidArgumentError, match=f"{name} must be between 0 and 1, got 95"):
        fit_calibration(*drawn(4), ANCESTORS, **shares)
