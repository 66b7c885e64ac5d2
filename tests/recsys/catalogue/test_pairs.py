"""Both halves of one CLIP or SigLIP checkpoint embed into the space that it was trained for."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedModel

import text.checkpoint
import vision.checkpoint
from tests.made_pairs import SIZE, make_pair
from tests.planted import smooth_picture
from text.config import TextConfig
from text.encoder import TextEncoder
from text.errors import CheckpointError
from text.networks.build import build_encoder
from vision.batches import prepared_batches
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower

TEXTS = ("a photo of a red mug", "Blue bowl", "car")
PICTURES = [smooth_picture(seed) for seed in range(4)]


class Pair(NamedTuple):
    """A checkpoint and its halves."""

    folder: Path
    published: PreTrainedModel
    vision: VisionTower
    text: TextEncoder


@pytest.fixture(scope="module", params=["clip", "siglip"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A tiny checkpoint, and what both towers make of it."""
    folder = tmp_path_factory.mktemp(request.param)
    published = make_pair(request.param, folder)
    encoder = build_encoder(TextConfig(checkpoint=str(folder)), [], seed=0)
    backbone = build_backbone(f"transformers/{folder}", pretrained=True, size=SIZE)
    tower = VisionTower(backbone, dim=encoder.dim, classes={"kind": ["a", "b"]}).eval()
    return Pair(folder, published, tower, encoder)


def _cosines(pair: Pair) -> np.ndarray:
    """Return the cosines of pictures and texts by the published network alone."""
    pixels = next(prepared_batches(PICTURES, pair.vision.preprocess, batch_size=8))
    tokenizer = AutoTokenizer.from_pretrained(pair.folder)
    siglip = pair.published.config.model_type == "siglip"
    padding = {"padding": "max_length" if siglip else True}
    inputs = tokenizer(list(TEXTS), return_tensors="pt", **padding)
    with torch.no_grad():
        # SigLIP is published without a mask of its padding.
        mask = {} if siglip else {"attention_mask": inputs["attention_mask"]}
        words = pair.published.get_text_features(input_ids=inputs["input_ids"], **mask)
        images = pair.published.get_image_features(pixel_values=pixels)
    normal = torch.nn.functional.normalize
    return (normal(images.pooler_output) @ normal(words.pooler_output).T).numpy()


def test_cosines_are_those_of_the_published_network(pair: Pair) -> None:
    wanted = _cosines(pair)
    assert np.ptp(wanted) > 0.1, "the checkpoint tells pictures and texts apart"
    got = pair.vision.embed(PICTURES) @ pair.text.embed(TEXTS).T
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    one_by_one = np.concatenate([pair.text.embed([one]) for one in TEXTS])
    np.testing.assert_allclose(one_by_one, pair.text.embed(TEXTS), atol=1e-5)


def test_saved_halves_embed_the_same(pair: Pair, tmp_path: Path) -> None:
    text.checkpoint.save(pair.text, tmp_path / "text")
    vision.checkpoint.save(pair.vision, tmp_path / "vision")
    encoder, tower = (
        text.checkpoint.load(tmp_path / "text"),
        vision.checkpoint.load(tmp_path / "vision"),
    )
    got = tower.embed(PICTURES) @ encoder.embed(TEXTS).T
    np.testing.assert_allclose(got, _cosines(pair), atol=1e-5)


def test_training_the_classifiers_alone_leaves_the_pair(pair: Pair) -> None:
    before = pair.vision.embed(PICTURES)
    pair.vision.train()
    with torch.no_grad():  # statistics of a batch norm move in a forward pass
        pair.vision(torch.rand(4, 3, SIZE, SIZE))
    np.testing.assert_allclose(pair.vision.eval().embed(PICTURES), before, atol=1e-6)


def test_a_tower_of_another_size_leaves_the_projection_out(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    backbone = build_backbone(f"transformers/{pair.folder}", pretrained=True, size=SIZE)
    VisionTower(backbone, dim=5, classes={})
    assert f"set dim = {pair.text.dim} to compare pictures with texts" in caplog.text


def test_random_weights_have_no_common_space(pair: Pair) -> None:
    assert build_backbone(f"transformers/{pair.folder}", size=SIZE).projection is None


def test_a_checkpoint_without_its_text_half_is_refused(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(pair.folder, tmp_path / "half")
    file = tmp_path / "half" / "model.safetensors"
    kept = {name: one for name, one in load_file(file).items() if not name.startswith("text")}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"must hold every weight of a .* lacks text_"):
        text.checkpoint.load(tmp_path / "half")
