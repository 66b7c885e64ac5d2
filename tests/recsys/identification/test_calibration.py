import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recsys.identification.calibration import (
    Calibration,
    fit_calibration,
    take_evenly,
    utilities,
)
from recsys.identification.evidence import HEAD, ITEM, PHOTOS, PICTURE, SOURCES, Evidence
from recsys.identification.groups import OperatingPoint, choose, likely_sets

N_ITEMS = 30
ANCESTORS = torch.arange(N_ITEMS)[:, None] // 5  # categories of five siblings


def drawn(n_photos: int = 300, *, noise: float = 0.12, seed: int = 0) -> tuple[Evidence, Tensor]:
    """Return photos whose PICTURE tells the product, ITEM tells nothing, and PHOTOS does a little.

    Siblings look alike: their cosines are higher than those of other products.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(N_ITEMS, (n_photos,), generator=generator)
    own = F.one_hot(rows, N_ITEMS).float()
    alike = (ANCESTORS[rows] == ANCESTORS[:, 0]).float()
    values = noise * torch.randn(n_photos, N_ITEMS, len(SOURCES), generator=generator)
    values[..., PICTURE] += 0.3 * own + 0.3 * alike
    values[..., PHOTOS] += 0.1 * own
    present = torch.ones_like(values, dtype=torch.bool)
    present[..., HEAD] = False
    values = values.masked_fill(~present, 0.0)
    return Evidence(values, present), rows


def fitted(evidence: Evidence, rows: Tensor, *, precision: float = 0.95) -> Calibration:
    return fit_calibration(evidence, rows, ANCESTORS, precision=precision, unknown_share=0.1)


def unseen(evidence: Evidence, rows: Tensor) -> Evidence:
    """Return the evidence as if no photo's product were in the catalogue."""
    own = F.one_hot(rows, N_ITEMS).bool()[..., None]
    return evidence.without(own.expand_as(evidence.present))


@given(
    seed=st.integers(0, 10_000),
    weights=st.lists(st.floats(0, 20), min_size=4, max_size=4),
    pivots=st.lists(st.floats(-2, 2), min_size=4, max_size=4),
    unknown=st.floats(-5, 5),
)
def test_probabilities_are_the_softmax_of_what_sources_say_above_their_pivots(
    seed: int, weights: list[float], pivots: list[float], unknown: float
) -> None:
    random = np.random.default_rng(seed)
    present = torch.from_numpy(random.random((2, 3, 4)) < 0.5)
    values = torch.from_numpy(random.uniform(-1, 1, (2, 3, 4))).masked_fill(~present, 0.0)
    point = OperatingPoint(0.5)
    calibration = Calibration(tuple(weights), tuple(pivots), unknown, point, point)
    found = calibration.probabilities(Evidence(values, present))
    for n in range(2):
        exponentials = [
            math.exp(
                sum(
                    weights[s] * (float(values[n, row, s]) - pivots[s])
                    for s in range(4)
                    if present[n, row, s]
                )
            )
            if present[n, row].any()
            else 0.0
            for row in range(3)
        ]
        exponentials.append(math.exp(unknown))
        wanted = [one / sum(exponentials) for one in exponentials]
        assert found[n].tolist() == pytest.approx(wanted, abs=1e-9)


def test_a_useless_source_weighs_little_beside_one_that_tells() -> None:
    calibration = fitted(*drawn())
    assert calibration.weights[PICTURE] > 10 * calibration.weights[ITEM]
    assert all(weight > 0 for weight in calibration.weights)


def test_weights_that_were_planted_are_found() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(1_500, N_ITEMS, len(SOURCES), generator=generator).double()
    values[..., [PHOTOS, HEAD]] = 0.0
    present = torch.ones_like(values, dtype=torch.bool)
    present[..., [PHOTOS, HEAD]] = False
    planted = torch.tensor([2.0, 0.5, 1.0, 1.0]).double()
    logits = utilities(
        Evidence(values, present),
        planted,
        torch.zeros(4).double(),
        torch.tensor(-100.0).double(),
    )
    rows = torch.multinomial(logits[:, :-1].softmax(dim=1), 1, generator=generator)[:, 0]
    evidence = Evidence(values, present)
    calibration = fitted(evidence, rows)
    assert calibration.weights[PICTURE] == pytest.approx(2.0, rel=0.15)
    assert calibration.weights[ITEM] == pytest.approx(0.5, rel=0.25)


def test_fresh_photos_are_right_as_often_as_their_probabilities_say() -> None:
    calibration = fitted(*drawn())
    evidence, rows = drawn(2_000, seed=1)
    best = calibration.probabilities(evidence)[:, :-1].max(dim=1)
    right = (best.indices == rows).float()
    # One photo in ten is reckoned to show something else; here none does.
    assert best.values.mean().item() == pytest.approx(right.mean().item(), abs=0.1)
    assert calibration.error is not None
    assert calibration.error < 0.05


def test_the_wanted_precision_holds_on_fresh_photos_of_products_known_and_not() -> None:
    calibration = fitted(*drawn(600))
    evidence, rows = drawn(1_800, seed=1)
    known, strange = evidence.take(rows.argsort()), unseen(*drawn(200, seed=2))
    rows = rows.sort().values
    threshold = calibration.answers.threshold
    assert threshold is not None
    said, right = 0, 0.0
    for one, truth in ((known, rows), (strange, None)):
        sets = likely_sets(calibration.probabilities(one)[:, :-1], ANCESTORS)
        for n, (level, size) in enumerate(zip(*choose(sets, threshold), strict=True)):
            if size:
                said += 1
                right += truth is not None and bool((sets.rows[n, level, :size] == truth[n]).any())
    assert right / said > 0.93
    assert calibration.answers.coverage is not None
    assert said / 2_000 == pytest.approx(calibration.answers.coverage, abs=0.1)


def precision_among_strangers(calibration: Calibration, known: Evidence, rows: Tensor) -> float:
    """Return how often a product is told of photos of which the last tenth show none."""
    threshold = calibration.answers.threshold
    assert threshold is not None
    sets = likely_sets(calibration.probabilities(known)[:, :-1], ANCESTORS)
    levels, sizes = choose(sets, threshold)
    said = sizes > 0
    hit = sets.rows[torch.arange(len(rows)), levels] == rows[:, None]
    right = (hit.cumsum(dim=1) > 0)[torch.arange(len(rows)), sizes - 1]
    return float(right[said].double().mean())


def test_a_precision_holds_for_strangers_like_those_that_nothing_has_met() -> None:
    def lookalikes(evidence: Evidence, rows: Tensor) -> Evidence:
        """Return what is said by what never learned to tell the products from their siblings."""
        values = evidence.values.clone()
        sibling = (rows + 1) % 5 + rows // 5 * 5
        values[torch.arange(len(rows)), sibling, PICTURE] += 0.3
        return Evidence(values, evidence.present)

    evidence, rows = drawn(600)
    fresh, truth = drawn(1_800, seed=1)
    others, theirs = drawn(200, seed=2)
    strange = unseen(lookalikes(others, theirs), theirs)
    asked = Evidence(*(torch.cat(parts) for parts in zip(fresh, strange, strict=True)))
    rows_asked = torch.cat([truth, torch.full_like(theirs, -1)])
    careful = fit_calibration(
        evidence,
        rows,
        ANCESTORS,
        precision=0.93,
        unknown_share=0.1,
        unmet=lookalikes(evidence, rows),
    )
    careless = fitted(evidence, rows, precision=0.93)
    assert precision_among_strangers(careful, asked, rows_asked) > 0.915
    assert precision_among_strangers(careless, asked, rows_asked) < 0.915


def test_photos_of_other_products_are_told_from_those_of_the_catalogue() -> None:
    calibration = fitted(*drawn())
    evidence, rows = drawn(500, seed=1)
    inside = 1 - calibration.probabilities(evidence)[:, -1]
    outside = 1 - calibration.probabilities(unseen(evidence, rows))[:, -1]
    assert (inside[:, None] > outside).float().mean() > 0.85


def test_a_product_just_added_competes_with_those_that_have_labelled_photos() -> None:
    evidence, rows = drawn()
    calibration = fitted(evidence, rows)
    fresh, truth = drawn(500, seed=1)
    bare = torch.zeros_like(fresh.present)
    bare[torch.arange(500), truth, PHOTOS] = True
    known = (calibration.probabilities(fresh).argmax(dim=1) == truth).float().mean()
    added = (calibration.probabilities(fresh.without(bare)).argmax(dim=1) == truth).float().mean()
    assert added > 0.85 * known


def test_a_handful_of_photos_promises_no_precision_and_leaves_the_belief_in_place() -> None:
    calibration = fitted(*drawn(5))
    assert calibration.answers.threshold is None
    assert calibration.answers.precision is not None
    assert calibration.answers.precision < 0.95
    assert calibration.weights[HEAD] == pytest.approx(1.0, rel=0.05)  # no photo says anything of it


def test_a_lower_precision_is_answered_more_often() -> None:
    evidence, rows = drawn(noise=0.2)
    strict, lax = (fitted(evidence, rows, precision=one).answers for one in (0.95, 0.7))
    assert lax.coverage is not None
    assert lax.coverage > (strict.coverage or 0.0)
    assert lax.precision is not None
    assert lax.precision >= 0.7


def test_a_product_that_no_source_knows_of_is_never_the_answer() -> None:
    evidence, rows = drawn(50)
    present = evidence.present.clone()
    present[:, 7] = False
    evidence = Evidence(evidence.values.masked_fill(~present, 0.0), present)
    calibration = fitted(evidence, rows)  # although some photos show it
    assert not calibration.probabilities(evidence)[:, 7].any()
    assert all(math.isfinite(weight) for weight in calibration.weights)


def test_many_photos_are_thinned_evenly() -> None:
    chosen = take_evenly(np.arange(1_000), n_items=50_000)
    assert len(chosen) == 200
    assert chosen[0] == 0
    assert chosen[-1] == 999
    assert take_evenly(np.arange(7), n_items=50).tolist() == list(range(7))


def test_what_cannot_be_calibrated_is_refused() -> None:
    evidence, rows = drawn(4)
    with pytest.raises(ValueError, match="at least one photo and two products, got 0 photos"):
        fitted(evidence.take(rows < 0), rows[:0])
    with pytest.raises(ValueError, match="precision must be between 0 and 1, got 95"):
        fitted(evidence, rows, precision=95)
