from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.config import FusionConfig
from recsys.models.fusion import ItemFusion
from recsys.training.items import ItemClasses, ItemPhotos, ItemTrainingData, train_items
from vision.training.run import TrainingRun

N_ITEMS, LATENT = 128, 6
CAUSES = np.random.default_rng(5).normal(size=(N_ITEMS, LATENT))
LOSSES = ("view", "photo", "head", "reconstruction", "pair", "distillation")
NOTHING = {f"{name}_weight": 0.0 for name in LOSSES}


def config(**changes: Any) -> FusionConfig:
    """Return a small fusion trained by the named losses alone, long enough to fit them."""
    small = {"dim": 8, "hidden": 8, "dropout": 0.0, "epochs": 1, "batch_size": 128}
    return FusionConfig.model_validate(
        {**small, **NOTHING, "learning_rate": 2e-2, "weight_decay": 0.0, **changes}
    )


def data(**changes: Any) -> ItemTrainingData:
    """Return items whose words and pictures are two linear readings of the same hidden cause."""
    rng = np.random.default_rng(0)
    return replace(
        ItemTrainingData(
            modalities={
                "text": (CAUSES @ rng.normal(size=(LATENT, 7))).astype(np.float32),
                "image": (CAUSES @ rng.normal(size=(LATENT, 9))).astype(np.float32),
            },
            present=np.ones((N_ITEMS, 2), dtype=np.bool_),
            title_groups=np.arange(N_ITEMS),
        ),
        **changes,
    )


def fitted(
    folder: Path, material: ItemTrainingData, chosen: FusionConfig, seed: int = 0, **options: Any
) -> ItemFusion:
    run = TrainingRun(folder, seed, torch.device("cpu"))
    return train_items(material, chosen, run, **options)


def weights(fusion: ItemFusion) -> Tensor:
    return torch.cat([parameter.detach().ravel() for parameter in fusion.parameters()])


@torch.no_grad()
def views(fusion: ItemFusion, material: ItemTrainingData) -> dict[str, Tensor]:
    """Return the embeddings of the items, from each modality alone and from all."""
    inputs = {name: torch.from_numpy(values) for name, values in material.modalities.items()}
    alone = {name: fusion.encode({name: values}) for name, values in inputs.items()}
    return {**alone, "whole": fusion(inputs, torch.from_numpy(material.present))}


def hit_rate(queries: Tensor, keys: Tensor) -> float:
    found = (queries @ keys.T).argmax(dim=1)
    return float((found == torch.arange(len(queries))).float().mean())


def untrained(folder: Path, material: ItemTrainingData) -> ItemFusion:
    return fitted(folder / "untrained", material, config())


def test_words_and_pictures_of_an_item_find_each_other(tmp_path: Path) -> None:
    material = data()
    before = views(untrained(tmp_path, material), material)
    fusion = fitted(tmp_path / "trained", material, config(view_weight=1.0, epochs=8))
    after = views(fusion, material)
    for query, key in (("text", "image"), ("image", "text"), ("text", "whole")):
        assert hit_rate(before[query], before[key]) < 0.5
        assert hit_rate(after[query], after[key]) > 0.9
    assert not fusion.training


@pytest.mark.parametrize(("most", "n_batches"), [(40, 2), (300, 16), (5_000, 64)])
def test_an_epoch_has_no_more_items_than_wanted(tmp_path: Path, most: int, n_batches: int) -> None:
    fitted(tmp_path, data(), config(view_weight=1.0, batch_size=16, items_per_epoch=most))
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert state["global_step"] == n_batches


def test_training_starts_from_a_fusion_if_one_is_passed(tmp_path: Path) -> None:
    material = data()
    start = fitted(tmp_path / "start", material, config(view_weight=1.0, epochs=8))
    nothing_learned = fitted(tmp_path / "on", material, config(), seed=1, start=start)
    assert torch.equal(weights(nothing_learned), weights(start))
    after = views(nothing_learned, material)
    assert hit_rate(after["text"], after["image"]) > 0.9  # its scale is kept, too


def test_a_start_of_other_modalities_is_an_error(tmp_path: Path) -> None:
    other = ItemFusion({"text": 7}, dim=8, hidden=8)
    with pytest.raises(ValueError, match=r"start must fuse \{'text': 7, 'image': 9\}, got"):
        fitted(tmp_path, data(), config(), start=other)


def test_photos_find_their_items(tmp_path: Path) -> None:
    material = data()
    rng = np.random.default_rng(1)
    rows = np.repeat(np.arange(20), 2)  # the other items have no photo
    turned = material.modalities["image"] @ rng.normal(size=(9, 9)).astype(np.float32)
    noise = 0.1 * rng.normal(size=(40, 9))
    shown = (turned[rows] + noise).astype(np.float32)
    material = replace(material, photos=ItemPhotos(shown, rows))
    before = untrained(tmp_path, material)
    after = fitted(tmp_path / "trained", material, config(photo_weight=1.0, epochs=8))
    rates = []
    for fusion in (before, after):
        with torch.no_grad():
            photos = fusion.encode({"image": torch.from_numpy(shown)})
        found = (photos @ views(fusion, material)["whole"].T).argmax(dim=1).numpy()
        rates.append((found == rows).mean())
    assert rates[0] < 0.3
    assert rates[1] > 0.8


def test_photos_teach_nothing_to_a_fusion_without_pictures(tmp_path: Path) -> None:
    words = {"text": data().modalities["text"]}
    alone = data(modalities=words, present=np.ones((N_ITEMS, 1), dtype=np.bool_))
    photos = ItemPhotos(np.ones((3, 9), dtype=np.float32), np.arange(3))
    shown = replace(alone, photos=photos)
    chosen = config(photo_weight=1.0)
    one, other = (fitted(tmp_path / str(n), m, chosen) for n, m in enumerate((alone, shown)))
    assert torch.equal(weights(one), weights(other))


def test_items_that_the_same_users_take_come_near(tmp_path: Path) -> None:
    half = 20  # the other items are in no pair
    pairs = np.stack([np.arange(half), np.arange(half) + half], axis=1)
    material = data(pairs=pairs)
    margins = []
    taught = fitted(tmp_path / "trained", material, config(pair_weight=1.0, epochs=8))
    for fusion in (untrained(tmp_path, material), taught):
        whole = views(fusion, material)["whole"]
        cosines = whole[:half] @ whole[half : 2 * half].T
        margins.append(float(cosines.diagonal().mean() - cosines.mean()))
    assert margins[0] < 0.2
    assert margins[1] > 0.7


def test_the_order_within_a_pair_does_not_matter(tmp_path: Path) -> None:
    pairs = np.stack([np.arange(64) % 8, np.arange(64) + 64], axis=1)
    chosen = config(pair_weight=1.0)
    one = fitted(tmp_path / "a", data(pairs=pairs), chosen)
    other = fitted(tmp_path / "b", data(pairs=pairs[:, ::-1].copy()), chosen)
    torch.testing.assert_close(weights(one), weights(other))


def test_items_of_a_class_come_near_and_unknown_classes_are_left_alone(tmp_path: Path) -> None:
    labels = (CAUSES[:, :2] > 0) @ np.array([1, 2])
    labels[:8] = -1
    material = data(classes=ItemClasses({"style": labels}, {"style": 4}))
    margins = []
    taught = fitted(tmp_path / "trained", material, config(head_weight=1.0, epochs=8))
    for fusion in (untrained(tmp_path, material), taught):
        known = views(fusion, material)["whole"][8:]
        same = torch.from_numpy(labels[8:, None] == labels[None, 8:])
        cosines = known @ known.T
        margins.append(float(cosines[same].mean() - cosines[~same].mean()))
    assert margins[0] < 0.3
    assert margins[1] > 0.7
    unknown = data(classes=ItemClasses({"style": np.full(N_ITEMS, -1)}, {"style": 4}))
    without = fitted(tmp_path / "unknown", unknown, config(head_weight=1.0))
    assert torch.equal(weights(without), weights(untrained(tmp_path, material)))


def test_items_become_as_similar_as_the_teacher_s(tmp_path: Path) -> None:
    teacher = CAUSES[:, :2].astype(np.float32)
    teacher[:8] = 0.0  # not among the teacher's items
    material = data(teacher=teacher)
    known = F.normalize(torch.from_numpy(teacher[8:]), dim=1)
    wanted = (known @ known.T).flatten()
    agreements = []
    taught = fitted(tmp_path / "trained", material, config(distillation_weight=1.0, epochs=8))
    for fusion in (untrained(tmp_path, material), taught):
        whole = views(fusion, material)["whole"][8:]
        agreements.append(
            float(torch.corrcoef(torch.stack([(whole @ whole.T).flatten(), wanted]))[0, 1])
        )
    assert agreements[0] < 0.5
    assert agreements[1] > 0.8


def test_with_modality_dropout_one_modality_is_enough_for_the_class(tmp_path: Path) -> None:
    """Words tell the class without doubt, so that pictures, which do with some, are not heard."""
    labels = np.arange(N_ITEMS) % 4
    rng = np.random.default_rng(2)
    sure = np.eye(4, dtype=np.float32)[labels]
    doubtful = (sure @ rng.normal(size=(4, 9)) + rng.normal(size=(N_ITEMS, 9))).astype(np.float32)
    material = data(
        modalities={"text": 4 * sure, "image": doubtful},
        classes=ItemClasses({"style": labels}, {"style": 4}),
    )
    margins = []
    for share in (0.0, 0.6):
        chosen = config(head_weight=1.0, modality_dropout=share, kind="concat", epochs=8)
        alone = views(fitted(tmp_path / str(share), material, chosen), material)["image"]
        same = torch.from_numpy(labels[:, None] == labels[None])
        cosines = alone @ alone.T
        margins.append(float(cosines[same].mean() - cosines[~same].mean()))
    assert margins[1] > margins[0] + 0.1


def test_a_linear_map_can_read_what_only_one_modality_knows(tmp_path: Path) -> None:
    """The words tell a brand that no picture shows; contrast alone would forget it."""
    material = data()
    brands = np.arange(N_ITEMS) % 2
    text = material.modalities["text"] - material.modalities["text"].mean(axis=0)
    text[:, -1] = 6.0 * brands
    material = replace(material, modalities={**material.modalities, "text": text})
    errors = []
    for name, weight in (("without", 0.0), ("with", 3.0)):
        chosen = config(view_weight=0.5, reconstruction_weight=weight, epochs=8)
        whole = views(fitted(tmp_path / name, material, chosen), material)["whole"].numpy()
        inputs = np.c_[whole, np.ones(N_ITEMS)]
        read = inputs @ np.linalg.lstsq(inputs, text[:, -1], rcond=None)[0]
        errors.append(np.square(read - text[:, -1]).mean() / text[:, -1].var())
    assert errors[1] < 0.2
    assert errors[1] < errors[0] / 2


ALL = {
    "view_weight": 1.0,
    "photo_weight": 1.0,
    "head_weight": 1.0,
    "reconstruction_weight": 1.0,
    "pair_weight": 1.0,
    "distillation_weight": 1.0,
}


def everything(**changes: Any) -> ItemTrainingData:
    """Return items with gaps in both modalities, and something for every loss."""
    rng = np.random.default_rng(3)
    present = np.ones((N_ITEMS, 2), dtype=np.bool_)
    present[:6, 0] = False
    present[4:10, 1] = False  # items 4 and 5 have neither
    return data(
        present=present,
        classes=ItemClasses({"style": np.arange(N_ITEMS) % 3}, {"style": 3}),
        pairs=rng.integers(0, N_ITEMS, (40, 2)),
        photos=ItemPhotos(
            rng.normal(size=(20, 9)).astype(np.float32), rng.integers(0, N_ITEMS, 20)
        ),
        teacher=rng.normal(size=(N_ITEMS, 5)).astype(np.float32),
        **changes,
    )


def test_an_absent_modality_cannot_leak(tmp_path: Path) -> None:
    clean = everything()
    filled = {}
    for m, (name, values) in enumerate(clean.modalities.items()):
        filled[name] = values.copy()
        filled[name][~clean.present[:, m]] = np.nan
    one = fitted(tmp_path / "a", clean, config(**ALL))
    other = fitted(tmp_path / "b", replace(clean, modalities=filled), config(**ALL))
    assert torch.equal(weights(one), weights(other))
    for here, there in zip(one.buffers(), other.buffers(), strict=True):
        assert torch.equal(here, there)


def test_an_item_without_any_modality_teaches_nothing(tmp_path: Path) -> None:
    material = everything()
    assert material.pairs is not None
    styles = np.where(np.isin(np.arange(N_ITEMS), [4, 5]), 0, np.arange(N_ITEMS) % 3)
    changed = replace(
        material,
        classes=ItemClasses({"style": styles}, {"style": 3}),
        pairs=np.concatenate([material.pairs, [[4, 7], [7, 5], [4, 5]]]),
    )
    chosen = config(**{**ALL, "photo_weight": 0.0})
    one, other = (fitted(tmp_path / str(n), m, chosen) for n, m in enumerate((material, changed)))
    assert torch.equal(weights(one), weights(other))


@pytest.mark.parametrize("loss", list(ALL))
def test_each_loss_alone_moves_the_weights(loss: str, tmp_path: Path) -> None:
    material = everything()
    start = weights(untrained(tmp_path, material))
    assert not torch.equal(weights(fitted(tmp_path, material, config(**{loss: 1.0}))), start)


@pytest.mark.parametrize("loss", ["view_weight", "photo_weight", "pair_weight"])
def test_two_items_of_one_title_are_never_negatives(loss: str, tmp_path: Path) -> None:
    """With one title for all, contrast has no negative left and nothing to teach."""
    apart = everything()
    alike = replace(apart, title_groups=np.zeros(N_ITEMS, dtype=np.int64))
    start = weights(untrained(tmp_path, apart))
    chosen = config(**{loss: 1.0})
    assert torch.equal(weights(fitted(tmp_path / "alike", alike, chosen)), start)
    assert not torch.equal(weights(fitted(tmp_path / "apart", apart, chosen)), start)


def test_inputs_are_standardised_over_the_items_that_have_them(tmp_path: Path) -> None:
    material = everything()
    fusion = fitted(tmp_path, material, config())
    for m, (values, projection) in enumerate(
        zip(material.modalities.values(), fusion.projections, strict=True)
    ):
        rows = values[material.present[:, m]]
        np.testing.assert_allclose(projection.mean.numpy(), rows.mean(axis=0), atol=1e-5)
        deviation = np.sqrt(np.square(rows - rows.mean(axis=0)).mean())
        assert float(projection.deviation) == pytest.approx(deviation, rel=1e-5)


def test_a_catalogue_smaller_than_a_batch_is_trained_on(tmp_path: Path) -> None:
    material = data()
    fusion = fitted(tmp_path, material, config(view_weight=1.0, batch_size=500, epochs=8))
    found = views(fusion, material)
    assert hit_rate(found["text"], found["image"]) > 0.9


def test_training_depends_on_its_seed_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    chosen = config(**ALL, kind="concat")
    one, same, other = (
        weights(fitted(tmp_path / str(n), everything(), chosen, seed))
        for n, seed in enumerate((0, 0, 1))
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_embedding_has_unit_length_whatever_is_missing(tmp_path: Path) -> None:
    material = everything()
    fusion = fitted(tmp_path, material, config(**ALL))
    lengths = views(fusion, material)["whole"].norm(dim=1)
    torch.testing.assert_close(lengths, torch.from_numpy(material.present.any(axis=1)).float())
    assert F.cosine_similarity(*views(fusion, material)["whole"][:2], dim=0) < 0.999


def test_with_a_single_item_there_is_nothing_to_learn(tmp_path: Path) -> None:
    present = np.arange(2 * N_ITEMS).reshape(N_ITEMS, 2) == 7
    for few in (present, present & False):
        assert not fitted(tmp_path, data(present=few), config()).training
        assert not [*tmp_path.iterdir()]


def test_photos_set_the_scale_of_pictures_where_no_item_has_one(tmp_path: Path) -> None:
    material = everything()
    assert material.photos is not None
    alone = replace(material, present=material.present & np.array([True, False]))
    mean = fitted(tmp_path, alone, config()).state_dict()["projections.1.mean"].numpy()
    np.testing.assert_allclose(mean, material.photos.embeddings.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"present": np.ones((N_ITEMS, 3), dtype=np.bool_)},
            r"present must .*\(128, 2\).*\(128, 3\)",
        ),
        ({"title_groups": np.arange(5)}, r"title_groups must .*\(128,\) for 128 items, got \(5,\)"),
        ({"pairs": np.zeros((4, 3), dtype=np.int64)}, r"pairs must .*\(4, 2\).* got \(4, 3\)"),
        (
            {"teacher": np.zeros((5, 3), dtype=np.float32)},
            r"teacher must .*\(128, 3\).* got \(5, 3\)",
        ),
        (
            {"photos": ItemPhotos(np.zeros((0, 9), np.float32), np.zeros(2, np.int64))},
            r"photos.rows must .*\(0,\).* got \(2,\)",
        ),
        (
            {"photos": ItemPhotos(np.zeros((0, 5), np.float32), np.zeros(0, np.int64))},
            r"photos.embeddings must .*\(0, 9\).* got \(0, 5\)",
        ),
        (
            {"classes": ItemClasses({"a": np.zeros(3, dtype=np.int64)}, {"a": 1})},
            r"targets\['a'\] must have shape \(128,\).*got \(3,\)",
        ),
        (
            {"classes": ItemClasses({"a": np.arange(N_ITEMS)}, {"a": 9})},
            r"targets\['a'\] must be below its n_classes 9, got 127",
        ),
        ({"pairs": np.array([[0, 128]])}, r"pairs must be item rows in \[0, 128\), got 0 to 128"),
        ({"pairs": np.array([[-1, 2]])}, r"pairs must be item rows in \[0, 128\), got -1 to 2"),
        (
            {"photos": ItemPhotos(np.ones((1, 9), np.float32), np.array([170]))},
            r"photos.rows must be item rows in \[0, 128\), got 170 to 170",
        ),
    ],
)
def test_arrays_that_do_not_fit_each_other_are_an_error(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        fitted(tmp_path, data(**changes), config())
