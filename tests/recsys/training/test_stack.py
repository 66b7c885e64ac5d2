from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys.catalogue.embedder import Modalities
from recsys.data.arrays import Floats
from recsys.data.interactions import MICROSECONDS_PER_DAY
from recsys.training.inputs import Material
from recsys.training.items import ItemPhotos
from recsys.training.stack import FusedItems, Stack, fit_user_encoders, fuse_items
from tests.recsys.training.stack_material import (
    CONFIG,
    CUTS_US,
    N_ITEMS,
    behaviour,
    below,
    known,
    made_runtime,
    material,
    ranking_of,
    shop,
    trained,
    weights,
    with_changed,
)

DAY = MICROSECONDS_PER_DAY
STAGES = ("statistics", "items", "users", "ranker")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Stack, Path]:
    """What the material gives, and the folder of the workspace that it was trained in."""
    folder = tmp_path_factory.mktemp("first")
    stack, skipped = trained(folder, material())
    assert skipped == dict.fromkeys(STAGES, False)
    return stack, folder


def networks(stack: Stack) -> tuple[torch.nn.Module, ...]:
    """Return fusion, user encoder and the network that ranks, as held out."""
    ranker = ranking_of(stack).held_out.ranker
    assert isinstance(ranker, torch.nn.Module)
    return *below(stack), ranker


def test_every_part_is_trained_once_and_read_back_the_next_time(
    first: tuple[Stack, Path],
) -> None:
    stack, folder = first
    again, skipped = trained(folder, material())
    assert skipped == dict.fromkeys(STAGES, True)
    np.testing.assert_array_equal(stack.fused.embeddings, again.fused.embeddings)
    lengths = np.linalg.norm(stack.fused.embeddings, axis=1)
    np.testing.assert_allclose(lengths, np.ones(N_ITEMS), rtol=1e-5)
    for one, other in zip(networks(stack), networks(again), strict=True):
        assert torch.equal(weights(one), weights(other))
        assert not one.training


@pytest.mark.parametrize(
    ("section", "change", "again"),
    [
        ("ranker", {"hidden": 5}, {"ranker"}),
        ("users", {"n_targets": 2}, {"users", "ranker"}),
        ("fusion", {"hidden": 5}, {"items", "users", "ranker"}),
    ],
)
def test_a_changed_setting_trains_its_part_and_what_reads_it_again(
    section: str, change: dict[str, Any], again: set[str], first: tuple[Stack, Path]
) -> None:
    changed = getattr(CONFIG, section).model_copy(update=change)
    config = CONFIG.model_copy(update={section: changed})
    _, skipped = trained(first[1], material(), config)
    assert {name for name in STAGES if not skipped[name]} == again


def test_other_material_and_another_seed_share_no_stage(first: tuple[Stack, Path]) -> None:
    _, skipped = trained(first[1], material(shop(interactions=None), key="other"))
    assert not any(skipped.values())
    config = CONFIG.model_copy(update={"seed": 2})
    _, skipped = trained(first[1], material(shop(interactions=None)), config)
    assert not any(skipped.values())


def test_without_events_there_is_a_fusion_and_nothing_above_it(tmp_path: Path) -> None:
    stack, skipped = trained(tmp_path, material(shop(interactions=None)))
    assert list(skipped) == ["items"]
    assert stack.ranking is None


def test_an_ablation_has_one_modality_and_stages_of_its_own(tmp_path: Path) -> None:
    whole = material()
    stack, skipped = trained(tmp_path, whole.only("text"), suffix="-text")
    assert stack.fused.fusion.modalities == ("text",)
    assert list(skipped) == ["statistics", "items-text", "users-text", "ranker-text"]
    assert whole.only("text").photos is None
    assert whole.only("image").photos is whole.photos
    assert len({whole.key, whole.only("text").key, whole.only("image").key}) == 3


def test_what_happens_after_a_moment_reaches_no_encoder_that_was_trained_up_to_it(
    first: tuple[Stack, Path], tmp_path: Path
) -> None:
    """Nor does what happens after the first cut reach the fusion."""
    before = encoders(first[0], first[1])
    for number, same in ((0, {"first"}), (-1, {"first", "held_out"})):
        stack = trained(tmp_path / str(number), with_changed(CUTS_US[number]))[0]
        np.testing.assert_array_equal(first[0].fused.embeddings, stack.fused.embeddings)
        after = encoders(stack, tmp_path / str(number))
        assert {name for name in before if torch.equal(before[name], after[name])} == same


def encoders(stack: Stack, folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights of the user encoders, by name."""
    found = fit_user_encoders(behaviour(), stack.fused, CONFIG.users, made_runtime(folder))
    return {name: weights(getattr(found, name)) for name in ("first", "held_out", "served")}


def test_encoders_go_on_from_the_one_that_is_passed(
    first: tuple[Stack, Path], tmp_path: Path
) -> None:
    start = ranking_of(first[0]).served.encoder
    found = fit_user_encoders(
        behaviour(), first[0].fused, CONFIG.users, made_runtime(tmp_path), start=start
    )
    fresh = encoders(first[0], first[1])["first"]
    after, begun = weights(found.first), weights(start)
    assert not torch.equal(after, fresh)
    assert (after - begun).norm() < (after - fresh).norm()


def test_photos_teach_the_fusion(tmp_path: Path) -> None:
    def fused(photos: ItemPhotos | None, name: str) -> Floats:
        chosen = material(shop(interactions=None), photos=photos)
        return trained(tmp_path / name, chosen)[0].fused.embeddings

    photos = material().photos
    assert photos is not None
    moved = photos.embeddings + np.arange(5, dtype=np.float32)
    before = fused(photos, "a")
    assert not np.allclose(fused(replace(photos, embeddings=moved), "b"), before)
    assert not np.allclose(fused(None, "c"), before)


def test_a_fusion_does_not_meet_the_items_that_it_is_to_do_without(tmp_path: Path) -> None:
    def fused(chosen: Material, name: str) -> FusedItems:
        return fuse_items(chosen, CONFIG.fusion, made_runtime(tmp_path / name), without=[0, 5])

    def moved(rows: list[int], photo: int) -> Material:
        whole = material()
        assert whole.photos is not None
        embeddings = {name: values.copy() for name, values in whole.modalities.embeddings.items()}
        for values in embeddings.values():
            values[rows] += np.arange(values.shape[1])
        photos = whole.photos.embeddings.copy()
        photos[photo] += np.arange(5)
        return replace(
            whole,
            modalities=Modalities(embeddings, whole.modalities.present),
            photos=replace(whole.photos, embeddings=photos),
        )

    before = weights(fused(material(), "a").fusion)
    unmet = fused(moved([0, 5], photo=0), "b")  # the first photo shows the first item
    assert torch.equal(weights(unmet.fusion), before)
    assert unmet.embeddings.shape[0] == N_ITEMS  # and yet it tells where they are
    assert unmet.embeddings[[0, 5]].any(axis=1).all()
    assert not torch.equal(weights(fused(moved([1], photo=0), "d").fusion), before)


def test_items_that_a_user_met_within_a_week_are_pairs_and_others_are_not(
    first: tuple[Stack, Path], tmp_path: Path
) -> None:
    past = known()
    early = past.timestamps_us < CUTS_US[0]
    # The events before the first cut, in the same order, more than a week between any two.
    pauses = np.cumsum(early[::-1])[::-1] * (7 * DAY + 1)
    times = np.where(early, CUTS_US[0] - pauses, past.timestamps_us)
    apart = trained(
        tmp_path / "a", material(shop(interactions=replace(past, timestamps_us=times)))
    )[0]
    alone = trained(tmp_path / "b", material(shop(interactions=None)))[0]
    np.testing.assert_array_equal(apart.fused.embeddings, alone.fused.embeddings)
    assert not np.allclose(first[0].fused.embeddings, alone.fused.embeddings)
