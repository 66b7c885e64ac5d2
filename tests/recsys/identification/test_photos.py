import io

import numpy as np
import pytest
import torch
from PIL import Image

from recsys.errors import InvalidImageError
from recsys.identification.photos import TowerPhotos, fuse_images, fuse_photos, run_tower
from recsys.models.fusion import ItemFusion
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower


@pytest.fixture(scope="module")
def tower() -> VisionTower:
    torch.manual_seed(0)
    backbone = build_backbone("resnet10t", pretrained=False, size=32)
    return VisionTower(backbone, dim=8, classes={"item": ["a", "b"], "kind": ["c", "d"]}).eval()


def photo(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 48, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_one_view_gives_the_towers_embeddings_and_logits(tower: VisionTower) -> None:
    images = [photo(seed) for seed in range(3)]
    seen = run_tower(tower, images, head="kind", views="one", device="cpu")
    assert torch.allclose(seen.embeddings, torch.from_numpy(tower.embed(images)), atol=1e-5)
    probabilities = torch.from_numpy(tower.predict_proba(images)["kind"])
    assert torch.allclose(seen.logits.softmax(dim=1), probabilities, atol=1e-5)


def test_several_views_are_averaged_as_the_tower_averages_them(tower: VisionTower) -> None:
    images = [photo(0)]
    seen = run_tower(tower, images, head=None, views="crops", device="cpu")
    wanted = torch.from_numpy(tower.embed(images, views="crops"))
    assert torch.allclose(seen.embeddings, wanted, atol=1e-5)
    assert seen.logits.shape == (1, 0)


def test_no_photos_give_no_rows(tower: VisionTower) -> None:
    seen = run_tower(tower, [], head="item", views="one", device="cpu")
    assert seen.embeddings.shape == (0, 8)
    assert seen.logits.shape == (0, 2)


def test_an_unreadable_photo_is_named_by_its_index(tower: VisionTower) -> None:
    with pytest.raises(InvalidImageError, match="image 1"):
        run_tower(tower, [photo(0), b"not an image"], head=None, views="one", device="cpu")


def test_images_are_fused_as_items_without_words() -> None:
    torch.manual_seed(0)
    fusion = ItemFusion({"text": 5, "image": 8}, dim=6).eval()
    embeddings = torch.randn(3, 8)
    words = torch.full((3, 5), torch.nan)
    present = torch.tensor([[False, True]]).expand(3, 2)
    wanted = fusion({"text": words, "image": embeddings}, present)
    assert torch.allclose(fuse_images(fusion, embeddings), wanted, atol=1e-6)


def test_fused_photos_keep_their_logits() -> None:
    torch.manual_seed(0)
    fusion = ItemFusion({"image": 8}, dim=6).eval()
    seen = TowerPhotos(torch.randn(3, 8), torch.randn(3, 2), torch.randn(3, 9))
    fused = fuse_photos(fusion, seen)
    assert torch.equal(fused.embeddings, fuse_images(fusion, seen.embeddings))
    assert torch.equal(fused.logits, seen.logits)
    assert torch.equal(fused.features, seen.features)
