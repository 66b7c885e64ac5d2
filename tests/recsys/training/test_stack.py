from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import text.dataset
import vision.dataset
from recsys.catalogue.embedder import Modalities
from recsys.config import DataConfig, FusionConfig, RankerConfig, TrainConfig, UserConfig
from recsys.data.arrays import Floats
from recsys.data.dataset import Dataset
from recsys.data.interactions import MICROSECONDS_PER_DAY, Interactions, build_interactions
from recsys.data.quarantine import Quarantine
from recsys.ranking.features import FEATURES
from recsys.ranking.statistics import build_statistics
from recsys.schema import EventSchema, ItemSchema, PhotoSchema
from recsys.training.inputs import Material, ShopData
from recsys.training.items import ItemPhotos
from recsys.training.labels import item_labels, title_groups
from recsys.training.pairs import item_pairs
from recsys.training.ranking import Snapshot
from recsys.training.samples import PictureSamples
from recsys.training.stack import FusedItems, Stack, fuse_items, take_snapshots, train_stack
from recsys.training.stages import Runtime, Workspace
from recsys.training.teacher import Teacher

DAY = MICROSECONDS_PER_DAY
START = datetime(2025, 1, 1, tzinfo=UTC)
N_ITEMS, N_USERS = 128, 16
CUTS_US = tuple(round((START + timedelta(days=day)).timestamp() * 1e6) for day in (40, 50, 60))
CONFIG = TrainConfig(
    seed=1,
    data=DataConfig(items="items.parquet"),
    fusion=FusionConfig(dim=6, hidden=4, epochs=1, batch_size=128),
    users=UserConfig(history_length=5, epochs=1, batch_size=64),
    ranker=RankerConfig(hidden=4, epochs=1, n_candidates=10),
)


def items() -> pl.DataFrame:
    """Return items, the last created late, the two before it of unknown age."""
    days: list[int | None] = [0] * (N_ITEMS - 3) + [None, None, 45]
    rows = [
        {
            "item_id": f"i{n:03}",
            "title": f"title {n}",
            "category": [("Fruit", "Wear")[n % 2]],
            "attributes": [],
            "available": n != 0,
            "created_at": None if days[n] is None else START + timedelta(days=days[n]),
        }
        for n in range(N_ITEMS)
    ]
    return pl.DataFrame(rows, schema=ItemSchema.create_empty().schema)


def events() -> pl.DataFrame:
    """Return events of the older items; one of unknown age is first met on day 45."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "user_id": f"u{user:02}",
            "item_id": f"i{rng.integers(N_ITEMS - 3):03}",
            "kind": ("buy", "view")[rng.integers(2)],
            "timestamp": START + timedelta(days=rng.uniform(0, 70)),
        }
        for user in range(N_USERS)
        for _ in range(20)
    ]
    met = {"user_id": "u00", "item_id": "i125", "kind": "view"}
    rows.append({**met, "timestamp": START + timedelta(days=45)})
    rows = [{**row, "quantity": 1.0, "value": None} for row in rows]
    return pl.DataFrame(rows, schema=EventSchema.create_empty().schema)


def shop(**changes: Any) -> ShopData:
    """Return what training reads of the tables, with some fields changed."""
    table, taken = items(), events()
    photos = pl.DataFrame(
        [
            {"image": "a.png", "item_id": f"i{n:03}", "category": [], "split": split}
            for n, split in enumerate(("train", None, "val", "test"))
        ],
        schema=PhotoSchema.create_empty().schema,
    )
    ids = table["item_id"].to_list()
    interactions = changes.pop("interactions", build_interactions(taken, ids))
    past = None if interactions is None else interactions.before(CUTS_US[0])
    return replace(
        ShopData(
            dataset=Dataset(table, taken, photos, None, Quarantine(())),
            labels=item_labels(table),
            title_groups=title_groups(table),
            teacher=Teacher(None, ids),
            interactions=interactions,
            target_kinds=("buy",),
            cuts_us=() if interactions is None else CUTS_US,
            pairs=item_pairs(past, seed=CONFIG.seed),
            pictures=PictureSamples(vision.dataset.Samples([], {}, {}), None, None, ()),
            texts=text.dataset.Samples([]),
            left_out={},
        ),
        **changes,
    )


def material(of: ShopData | None = None, **changes: Any) -> Material:
    """Return random embeddings of the shop's items and photos, with some fields changed."""
    rng = np.random.default_rng(1)
    embeddings = {
        name: rng.normal(size=(N_ITEMS, size)).astype(np.float32)
        for name, size in (("image", 5), ("text", 4))
    }
    present = {name: np.ones(N_ITEMS, dtype=np.bool_) for name in embeddings}
    present["image"][3] = False
    return replace(
        Material(
            shop=of or shop(),
            modalities=Modalities(embeddings, present),
            photos=ItemPhotos(rng.normal(size=(2, 5)).astype(np.float32), np.array([0, 1])),
            start=None,
            key="key",
        ),
        **changes,
    )


def known() -> Interactions:
    interactions = shop().interactions
    assert interactions is not None
    return interactions


def made_runtime(folder: Path, seed: int = CONFIG.seed) -> Runtime:
    return Runtime(Workspace(folder, announce=lambda name: None), "cpu", seed=seed)


def trained(
    folder: Path, chosen: Material, config: TrainConfig = CONFIG, *, suffix: str = ""
) -> tuple[Stack, dict[str, bool]]:
    """Return the stack, and which of its stages were skipped."""
    runtime = made_runtime(folder, config.seed)
    stack = train_stack(chosen, config, runtime, suffix=suffix)
    return stack, {stage.name: stage.skipped for stage in runtime.workspace.stages}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Stack, Path]:
    """What the material gives, and the folder of the workspace that it was trained in."""
    folder = tmp_path_factory.mktemp("first")
    stack, skipped = trained(folder, material())
    assert skipped == dict.fromkeys(("items", "users", "ranker"), False)
    return stack, folder


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().ravel() for parameter in module.parameters()])


def networks(stack: Stack) -> tuple[torch.nn.Module, ...]:
    assert stack.ranking is not None
    return stack.fused.fusion, *stack.ranking


def with_changed(keep_us: int) -> Material:
    """Return the material with every event at or after a moment moved to another item."""
    past = known()
    rows = np.where(
        past.timestamps_us < keep_us, past.item_rows, (past.item_rows + 5) % (N_ITEMS - 3)
    )
    return material(shop(interactions=replace(past, item_rows=rows)))


def test_every_part_is_trained_once_and_read_back_the_next_time(
    first: tuple[Stack, Path],
) -> None:
    stack, folder = first
    again, skipped = trained(folder, material())
    assert skipped == dict.fromkeys(("items", "users", "ranker"), True)
    np.testing.assert_array_equal(stack.fused.embeddings, again.fused.embeddings)
    lengths = np.linalg.norm(stack.fused.embeddings, axis=1)
    np.testing.assert_allclose(lengths, np.ones(N_ITEMS), rtol=1e-5)
    for one, other in zip(networks(stack), networks(again), strict=True):
        assert torch.equal(weights(one), weights(other))
        assert not one.training


@pytest.mark.parametrize(
    ("section", "change", "wanted"),
    [
        ("ranker", {"hidden": 5}, {"items": True, "users": True, "ranker": False}),
        ("users", {"n_targets": 2}, {"items": True, "users": False, "ranker": False}),
        ("fusion", {"hidden": 5}, {"items": False, "users": False, "ranker": False}),
    ],
)
def test_a_changed_setting_trains_its_part_and_what_reads_it_again(
    section: str, change: dict[str, Any], wanted: dict[str, bool], first: tuple[Stack, Path]
) -> None:
    changed = getattr(CONFIG, section).model_copy(update=change)
    config = CONFIG.model_copy(update={section: changed})
    assert trained(first[1], material(), config)[1] == wanted


def test_other_material_and_another_seed_share_no_stage(first: tuple[Stack, Path]) -> None:
    _, skipped = trained(first[1], material(shop(interactions=None), key="other"))
    assert not any(skipped.values())
    config = CONFIG.model_copy(update={"seed": 2})
    _, skipped = trained(first[1], material(shop(interactions=None)), config)
    assert not any(skipped.values())


def test_other_features_train_the_ranker_again(
    first: tuple[Stack, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.training.stack.FEATURES", (*FEATURES[1:], "another"))
    assert trained(first[1], material())[1] == {"items": True, "users": True, "ranker": False}


def test_without_events_there_is_a_fusion_and_nothing_above_it(tmp_path: Path) -> None:
    stack, skipped = trained(tmp_path, material(shop(interactions=None)))
    assert list(skipped) == ["items"]
    assert stack.ranking is None


def test_an_ablation_has_one_modality_and_stages_of_its_own(tmp_path: Path) -> None:
    whole = material()
    stack, skipped = trained(tmp_path, whole.only("text"), suffix="-text")
    assert stack.fused.fusion.modalities == ("text",)
    assert list(skipped) == ["items-text", "users-text", "ranker-text"]
    assert whole.only("text").photos is None
    assert whole.only("image").photos is whole.photos
    assert len({whole.key, whole.only("text").key, whole.only("image").key}) == 3


def test_what_happens_after_the_first_cut_reaches_neither_fusion_nor_user_encoder(
    first: tuple[Stack, Path], tmp_path: Path
) -> None:
    one, other = first[0], trained(tmp_path, with_changed(CUTS_US[0]))[0]
    np.testing.assert_array_equal(one.fused.embeddings, other.fused.embeddings)
    (_, encoder, ranker), (_, same_encoder, other_ranker) = networks(one), networks(other)
    assert torch.equal(weights(encoder), weights(same_encoder))
    assert not torch.equal(weights(ranker), weights(other_ranker))


def test_what_happens_after_the_split_reaches_nothing(
    first: tuple[Stack, Path], tmp_path: Path
) -> None:
    one, other = first[0], trained(tmp_path, with_changed(CUTS_US[-1]))[0]
    for mine, theirs in zip(networks(one), networks(other), strict=True):
        assert torch.equal(weights(mine), weights(theirs))


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


def snapshots(of: ShopData) -> list[Snapshot]:
    return list(take_snapshots(of, np.eye(N_ITEMS, dtype=np.float32)))


def test_a_snapshot_knows_what_lay_before_its_cut() -> None:
    one, other = (snapshots(chosen)[0] for chosen in (shop(), with_changed(CUTS_US[0]).shop))
    for name in ("popularity", "neighbour_rows", "neighbour_weights", "created_us", "embeddings"):
        assert torch.equal(getattr(one.table, name), getattr(other.table, name))
    statistics = build_statistics(known(), CUTS_US[0])
    wanted = torch.from_numpy(np.log1p(statistics.buyers))
    torch.testing.assert_close(one.table.popularity[:, 0], wanted)
    assert one.table.target_kinds.tolist() == [True, False]


def test_a_snapshot_answers_with_what_was_bought_until_the_next() -> None:
    shot = snapshots(shop())[0]
    past = known()
    wanted: list[set[int]] = [set() for _ in range(N_USERS)]
    for user, row, kind, time in zip(
        past.user_rows, past.item_rows, past.kinds, past.timestamps_us, strict=True
    ):
        if past.kind_names[kind] == "buy" and CUTS_US[0] <= time < CUTS_US[1]:
            wanted[user].add(int(row))
    assert any(wanted)
    assert [set(rows.tolist()) for rows in shot.answers] == wanted


@pytest.mark.parametrize(("cut", "there"), [(0, []), (1, [125, 127])])
def test_items_come_on_offer_when_created_or_when_first_met(cut: int, there: list[int]) -> None:
    """Item 125 is met on day 45, 126 never, 127 is created on day 45; 0 can no longer be bought."""
    shot = snapshots(shop())[cut]
    assert shot.candidates.tolist() == [*range(125), *there]
