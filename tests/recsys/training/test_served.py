"""A bundle whose vision tower a CPU runs as a graph answers as one that torch runs."""

import logging
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec

import numpy as np
import polars as pl
import pytest
import torch

from recsys.bundle import Bundle
from recsys.catalogue import served_tower
from recsys.config import ServingConfig, TrainConfig
from recsys.data.synthetic import Shop
from recsys.errors import ConfigError, MissingExtraError
from recsys.evaluation.run_report import weights_of
from recsys.identifier import ProductIdentifier
from recsys.pipeline import Run, train
from recsys.recommender import Recommender
from recsys.training import served
from vision.deploy.served import OnnxBackbone

Find = Callable[[str], ModuleSpec | None]


def trained(run: Run, config: TrainConfig, tower: str) -> Run:
    """Return a run in the folder of another, which differs in what runs the tower alone."""
    evaluation = config.evaluation.model_copy(update={"ablations": False})
    serving = ServingConfig.model_validate({"tower": tower})
    changed = config.model_copy(update={"serving": serving, "evaluation": evaluation})
    return train(changed, run.bundle.parent)


@pytest.fixture(scope="module")
def onnx_run(tiny_run: Run, tiny_config: TrainConfig) -> Run:
    return trained(tiny_run, tiny_config, "onnx")


def without(*missing: str) -> Find:
    return lambda name: None if name in missing else find_spec(name)


def test_only_the_graph_is_made_and_the_bundle_says_how_near_it_is(
    onnx_run: Run, tiny_run: Run
) -> None:
    assert [stage.name for stage in onnx_run.stages if not stage.skipped] == ["serving"]
    bundle = Bundle(onnx_run.bundle)
    assert bundle.served_tower is not None
    assert bundle.served_tower.parity["lowest_cosine"] == pytest.approx(1, abs=1e-5)
    assert "a CPU runs the vision tower as onnx" in weights_of(bundle)[-1]
    assert Bundle(tiny_run.bundle).served_tower is None


def test_photos_are_identified_searched_and_annotated_by_the_graph_as_by_torch(
    onnx_run: Run, tiny_run: Run, tiny_shop: Shop
) -> None:
    photos = [tiny_shop.images / one for one in pl.read_parquet(tiny_shop.photos)["image"][:6]]
    graph, plain = (ProductIdentifier(Recommender.load(run.bundle)) for run in (onnx_run, tiny_run))
    assert isinstance(graph.recommender.embedder.image_tower.backbone, OnnxBackbone)
    for got, expected in zip(graph.identify_many(photos), plain.identify_many(photos), strict=True):
        assert [one.item_id for one in got.candidates] == [
            one.item_id for one in expected.candidates
        ]
        np.testing.assert_allclose(
            [one.score for one in got.candidates],
            [one.score for one in expected.candidates],
            atol=1e-4,
        )
    found = [one.recommender.search(image=photos[0], k=5) for one in (graph, plain)]
    assert [one.item_id for one in found[0]] == [one.item_id for one in found[1]]
    named = [one.recommender.annotate(photos[0], min_probability=0) for one in (graph, plain)]
    assert named[0].category == named[1].category


def test_without_the_runtime_torch_runs_the_tower_and_a_warning_says_so(
    onnx_run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(served_tower, "find_spec", without("onnxruntime"))
    with caplog.at_level(logging.WARNING, logger="recsys"):
        bundle = Bundle(onnx_run.bundle)
        assert bundle.vision_on_cpu is bundle.vision
    assert "pip install 'vitrine-recsys[onnx]'" in caplog.text


def test_int8_is_said_to_be_less_exact(tiny_run: Run, tiny_config: TrainConfig) -> None:
    if not torch.cpu.get_capabilities().get("avx512_vnni", False):
        pytest.skip("the sums of an int8 graph overflow on this processor")
    bundle = Bundle(trained(tiny_run, tiny_config, "int8").bundle)
    assert bundle.served_tower is not None
    assert 0.8 < bundle.served_tower.parity["cosine"] < 1 - 1e-5
    assert set(bundle.served_tower.parity["same_class"]) == set(bundle.vision.classes)


def test_graphs_that_this_machine_cannot_write_are_refused_before_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(served, "find_spec", without("onnxscript"))
    with pytest.raises(MissingExtraError, match=r"needs onnxscript: pip install"):
        served.check_serving(ServingConfig(tower="int8"))
    served.check_serving(ServingConfig())


def test_int8_is_refused_where_its_parity_could_not_be_measured() -> None:
    int8 = ServingConfig(tower="int8")
    with pytest.raises(ConfigError, match="AVX2 and without VNNI"):
        served.check_serving(int8, {"avx2": True})
    served.check_serving(int8, {"avx2": True, "avx512_vnni": True})
    served.check_serving(ServingConfig(tower="onnx"), {"avx2": True})
