"""Views have the right place in the picture, and outputs of a tower are averaged over them."""

import pytest
import torch

from vision.networks.backbones import build_backbone
from vision.test_time import Views, draw_views
from vision.tower import VisionTower


@pytest.mark.parametrize(("views", "count"), [("one", 1), ("flip", 2), ("crops", 12)])
def test_every_view_has_the_size_of_the_picture(views: Views, count: int) -> None:
    drawn = list(draw_views(torch.rand(3, 3, 20, 20), views))
    assert len(drawn) == count
    assert {view.shape for view in drawn} == {(3, 3, 20, 20)}


def test_crops_show_the_corners_and_the_centre() -> None:
    # Brightness rises to the right in one channel and downwards in another.
    ramp = torch.linspace(0, 1, 20)
    images = torch.stack([ramp.expand(20, 20), ramp[:, None].expand(20, 20), torch.zeros(20, 20)])
    drawn = list(draw_views(images[None], "crops"))
    means = [tuple(view.mean((0, 2, 3))[:2].tolist()) for view in drawn[2::2]]
    low, high, middle = pytest.approx(0.39, abs=0.02), pytest.approx(0.61, abs=0.02), 0.5
    centre = pytest.approx(middle, abs=0.01)
    assert means == [(low, low), (high, low), (low, high), (high, high), (centre, centre)]
    for whole, mirrored in zip(drawn[::2], drawn[1::2], strict=True):
        assert torch.equal(mirrored, whole.flip(3))


def test_outputs_are_averaged_over_the_views() -> None:
    torch.manual_seed(0)
    tower = VisionTower(build_backbone("test_resnet", size=32), dim=6, classes={"kind": ["a", "b"]})
    tower.eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        singles = [tower.outputs(view) for view in draw_views(images, "flip")]
        averaged = tower.averaged(images, "flip")
        mirrored = tower.averaged(images.flip(3), "flip")
    mean = sum(single.logits["kind"] for single in singles) / 2
    torch.testing.assert_close(averaged.logits["kind"], mean)
    torch.testing.assert_close(averaged.embeddings.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(averaged.embeddings, mirrored.embeddings)
