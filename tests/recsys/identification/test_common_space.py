"""Pictures and words in one space: planted vectors, and what passes for a pair."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from recsys.config import FusionConfig
from recsys.identification.common_space import CommonSpace, common_spaces, fit_space, place_pictures
from recsys.models.fusion import build_fusion

N_WORDS, DIM = 6, 12


def _unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def _planted(noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    words = _unit(rng.normal(size=(N_WORDS, DIM)))
    labels = rng.integers(N_WORDS, size=240)
    return _unit(words[labels] + noise * rng.normal(size=(240, DIM))), words, labels


def test_the_temperature_is_that_under_which_the_labels_are_most_probable() -> None:
    pictures, words, labels = _planted(0.6)
    fitted = fit_space("towers", pictures, words, labels)
    assert fitted is not None
    found, cost = fitted
    cosines = pictures.astype(np.float64) @ words.T
    assert found.accuracy == (cosines.argmax(axis=1) == labels).mean()
    assert (found.n_words, found.n_photos) == (N_WORDS, 240)

    def nll(temperature: float) -> float:
        own = softmax(cosines / temperature, axis=1)[np.arange(240), labels]
        return float(-np.log(own).mean())

    assert cost == pytest.approx(nll(found.temperature), abs=1e-6)
    assert cost <= min(nll(one) for one in np.geomspace(0.01, 1.0, 60)) + 1e-4
    probabilities = found.probabilities(pictures, words)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    right = probabilities.argmax(axis=1) == labels
    assert probabilities.max(axis=1).mean() == pytest.approx(right.mean(), abs=0.05)


def test_vectors_that_say_nothing_are_no_pair() -> None:
    pictures, words, labels = _planted(0.6)
    rng = np.random.default_rng(1)
    assert fit_space("towers", _unit(rng.normal(size=pictures.shape)), words, labels) is None
    assert fit_space("towers", pictures[:0], words, labels[:0]) is None
    often = np.where(np.arange(240) < 200, 0, labels)
    always = np.repeat(words[:1], 240, axis=0)  # the most frequent word for every picture
    assert fit_space("towers", always, words, often) is None


def test_spaces_are_those_in_which_sizes_agree() -> None:
    both = build_fusion(FusionConfig(dim=4, hidden=4), {"image": 3, "text": 5})
    assert common_spaces(3, 5, both) == ["items"]
    blind = build_fusion(FusionConfig(dim=4, hidden=4), {"text": 3})
    assert common_spaces(3, 3, blind) == ["towers"]
    pictures = _unit(np.random.default_rng(0).normal(size=(2, 3)))
    assert place_pictures(pictures, both, "towers") is pictures
    fused = place_pictures(pictures, both.eval(), "items")
    with torch.inference_mode():
        wanted = both.encode({"image": torch.from_numpy(pictures)}).numpy()
    np.testing.assert_allclose(fused, wanted)


def test_a_space_comes_back_from_json() -> None:
    space = CommonSpace("items", 0.07, 0.6, 12, 90)
    assert CommonSpace(**vars(space)) == space
