"""A new row of a head: on the scale of the others, as planted classes show."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from tests.vision.planted_towers import mean_colour_tower
from vision.errors import InvalidArgumentError, TrainingError
from vision.labelling.imprinting import (
    LabelledFeatures,
    Reference,
    compute_features,
    imprint,
    with_class,
)

N_CLASSES, DIM, SPREAD = 12, 16, 0.35


def _planted(seed: int) -> tuple[np.ndarray, np.random.Generator]:
    """Return the means of normal classes with the same spread in every direction."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(N_CLASSES, DIM)) * 0.5, rng


def _draw(means: np.ndarray, each: int, rng: np.random.Generator) -> LabelledFeatures:
    labels = np.repeat(np.arange(len(means)), each)
    noise = rng.normal(size=(len(labels), DIM)) * SPREAD
    return LabelledFeatures((means[labels] + noise).astype(np.float32), labels)


def _optimal_head(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return weights and biases whose softmax is the true probability of each class."""
    return means / SPREAD**2, -(means**2).sum(axis=1) / (2 * SPREAD**2)


def _nll(logits: np.ndarray, labels: np.ndarray) -> float:
    own = softmax(logits, axis=1)[np.arange(len(labels)), labels]
    return float(-np.log(own).mean())


@pytest.mark.parametrize("shots", [1, 5, 20])
def test_a_new_class_is_as_probable_as_it_is_frequent(shots: int) -> None:
    means, rng = _planted(0)
    weights, biases = (part[:-1] for part in _optimal_head(means))
    learned, held_out = _draw(means[:-1], 10, rng), _draw(means[:-1], 20, rng)
    pictures = means[-1] + rng.normal(size=(shots, DIM)) * SPREAD
    row = imprint(weights, biases, pictures.astype(np.float32), Reference(learned, held_out))
    test = _draw(means, 60, rng)
    old = test.features @ weights.T + biases
    logits = np.column_stack([old, test.features @ row.weight + row.bias])
    own = test.labels == N_CLASSES - 1
    hit = logits.argmax(axis=1) == test.labels
    before = (old.argmax(axis=1) == test.labels)[~own].mean()
    assert hit[~own].mean() > before - 0.03, "the learned classes keep their pictures"
    assert hit[own].mean() > {1: 0.4, 5: 0.8, 20: 0.85}[shots]
    claimed = softmax(logits, axis=1)[:, -1].mean()
    assert claimed == pytest.approx(1 / N_CLASSES, abs=0.035), "on the scale of the others"
    # The definition: no other offset of the row explains the pictures much better.
    best = min(
        _nll(np.column_stack([old, logits[:, -1] + shift]), test.labels)
        for shift in np.arange(-6, 6.5, 0.5)
    )
    assert _nll(logits, test.labels) < best + 0.05


def test_the_pictures_order_and_unknown_labels_change_nothing() -> None:
    means, rng = _planted(1)
    weights, biases = _optimal_head(means)
    learned, held_out = _draw(means, 8, rng), _draw(means, 8, rng)
    shots = rng.normal(size=(4, DIM)).astype(np.float32)
    row = imprint(weights, biases, shots, Reference(learned, held_out))
    extra = LabelledFeatures(
        np.concatenate([held_out.features, shots]), np.append(held_out.labels, [-1] * 4)
    )
    again = imprint(weights, biases, shots[::-1], Reference(learned, extra))
    np.testing.assert_allclose(again.weight, row.weight, rtol=1e-5, atol=1e-9)
    assert again.bias == pytest.approx(row.bias, rel=1e-5)


def test_a_tower_with_a_new_class_keeps_its_other_logits() -> None:
    tower = mean_colour_tower({"kind": ["red", "green"], "other": ["a", "b"]})
    rng = np.random.default_rng(0)
    features = np.concatenate(
        [rng.normal((1, 0, 0), 0.1, (9, 3)), rng.normal((0, 1, 0), 0.1, (9, 3))]
    )
    pictures = LabelledFeatures(features.astype(np.float32), np.repeat([0, 1], 9))
    with torch.no_grad():
        tower.heads[0].weight.copy_(torch.tensor([[20.0, 0.0, 0.0], [0.0, 20.0, 0.0]]))
        tower.heads[0].bias.zero_()
    blue = np.array([[0, 0, 1]], dtype=np.float32)
    grown = with_class(tower, "kind", "blue", blue, Reference(pictures, pictures))
    assert grown.classes == {"kind": ("red", "green", "blue"), "other": ("a", "b")}
    assert tower.classes["kind"] == ("red", "green"), "the tower itself is not changed"
    squares = torch.eye(3)[:, :, None, None].expand(3, 3, 16, 16)  # red, green, blue
    before, after = tower.outputs(squares), grown.outputs(squares)
    assert torch.equal(after.embeddings, before.embeddings)
    assert torch.equal(after.logits["other"], before.logits["other"])
    torch.testing.assert_close(after.logits["kind"][:, :2], before.logits["kind"])
    assert after.logits["kind"].argmax(dim=1).tolist() == [0, 1, 2]


def test_the_scale_is_that_of_probabilities_at_a_temperature() -> None:
    tower = mean_colour_tower({"kind": ["red", "green"]})
    rng = np.random.default_rng(0)
    features = rng.uniform(0, 1, (40, 3)).astype(np.float32)
    pictures = LabelledFeatures(features, (features[:, 1] > features[:, 0]).astype(np.int64))
    shots, reference = features[:3, ::-1].copy(), Reference(pictures, pictures)
    warm = with_class(tower, "kind", "blue", shots, reference, temperature=4.0)
    with torch.no_grad():  # the same head with its temperature inside
        for part in tower.heads[0].parameters():
            part /= 4.0
    cool = with_class(tower, "kind", "blue", shots, reference)
    for one, other in zip(warm.heads[0].parameters(), cool.heads[0].parameters(), strict=True):
        torch.testing.assert_close(one / 4.0, other, rtol=1e-3, atol=1e-4)


def test_features_are_what_the_heads_read() -> None:
    from PIL import Image

    tower = mean_colour_tower({"kind": ["red", "green"]})
    features = compute_features(tower, [Image.new("RGB", (20, 20), (255, 0, 51))])
    np.testing.assert_allclose(features, [[1.0, 0.0, 0.2]], atol=1e-3)
    assert compute_features(tower, []).shape == (0, 3)


def test_what_cannot_set_a_scale_is_refused() -> None:
    means, rng = _planted(2)
    weights, biases = _optimal_head(means)
    one, all_ = _draw(means[:1], 5, rng), _draw(means, 5, rng)
    shots = all_.features[:2]
    with pytest.raises(TrainingError, match=r"at least two of the others.*pictures of 1"):
        imprint(weights, biases, shots, Reference(all_, one))
    with pytest.raises(InvalidArgumentError, match="at least one picture, got none"):
        imprint(weights, biases, shots[:0], Reference(all_, all_))
    tower = mean_colour_tower({"kind": ["red", "green"]})
    reference = Reference(all_, all_)
    with pytest.raises(InvalidArgumentError, match="target must be one of kind, got 'sort'"):
        with_class(tower, "sort", "blue", shots, reference)
    with pytest.raises(InvalidArgumentError, match="name must be new, got 'red'"):
        with_class(tower, "kind", "red", shots, reference)
