import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.config import TreesConfig
from recsys.errors import BundleError, InvalidArgumentError
from recsys.models.trees import TreeQueries, TreeRanker, train_trees

N_QUERIES, N_CANDIDATES, NAMES = 60, 40, ["noise", "signal", "constant", "late", "absent"]
CONFIG = TreesConfig(trees=20, leaves=7, min_candidates=10)


def planted(seed: int) -> TreeQueries:
    """Queries whose three answers have the largest signal, and more if they are late."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(N_QUERIES, N_CANDIDATES, len(NAMES))).astype(np.float32)
    features[..., 2] = 1.0
    features[..., 3] = generator.integers(0, 2, (N_QUERIES, N_CANDIDATES))
    features[..., 4] = 0.0
    worth = features[..., 1] + features[..., 3]
    relevance = np.zeros((N_QUERIES, N_CANDIDATES), dtype=np.float32)
    np.put_along_axis(relevance, np.argsort(-worth, axis=1)[:, :3], 1.0, axis=1)
    counts = np.full(N_QUERIES, N_CANDIDATES)
    return TreeQueries(features.reshape(-1, len(NAMES)), relevance.ravel(), counts)


def trained(*, threads: int = 1, seed: int = 0) -> TreeRanker:
    return train_trees(planted(0), CONFIG, NAMES, seed=seed, threads=threads)


@pytest.fixture(scope="module")
def ranker() -> TreeRanker:
    return trained()


def features(*shape: int, seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, len(NAMES), generator=generator)


def hits_at_3(scores: Tensor, queries: TreeQueries) -> float:
    relevance = torch.from_numpy(queries.relevance).view(N_QUERIES, -1)
    top = scores.view(N_QUERIES, -1).topk(3, dim=1).indices
    return float(relevance.gather(1, top).mean())


def test_trees_learn_which_candidates_are_answers(ranker: TreeRanker) -> None:
    unseen = planted(1)
    hits = hits_at_3(ranker(torch.from_numpy(unseen.features)), unseen)
    by_signal = hits_at_3(torch.from_numpy(unseen.features[:, 1].copy()), unseen)
    assert hits > max(0.85, by_signal + 0.1), "both features are needed"


def test_importance_is_the_share_of_each_feature_largest_first(ranker: TreeRanker) -> None:
    importance = ranker.importance()
    assert set(importance) == set(NAMES)
    assert next(iter(importance)) == "signal"
    assert list(importance.values()) == sorted(importance.values(), reverse=True)
    assert sum(importance.values()) == pytest.approx(1.0)
    assert importance["constant"] == importance["absent"] == 0.0
    assert importance["late"] > importance["noise"]


def test_the_same_input_gives_the_same_file_whatever_the_number_of_threads(tmp_path: Path) -> None:
    models = []
    for threads in (1, 2, 1):
        trained(threads=threads).save(tmp_path / "trees.txt")
        models.append((tmp_path / "trees.txt").read_bytes())
    assert models[0] == models[1] == models[2]


def test_another_seed_gives_another_model(ranker: TreeRanker) -> None:
    assert not torch.equal(trained(seed=1)(features(20)), ranker(features(20)))


def test_a_loaded_model_scores_as_the_saved_one(ranker: TreeRanker, tmp_path: Path) -> None:
    ranker.save(tmp_path / "trees.txt")
    loaded = TreeRanker.load(tmp_path / "trees.txt")
    assert torch.equal(loaded(features(50)), ranker(features(50)))
    assert torch.equal(loaded.contributions(features(5)), ranker.contributions(features(5)))
    assert loaded.importance() == ranker.importance()
    loaded.save(tmp_path / "again.txt")
    assert (tmp_path / "again.txt").read_bytes() == (tmp_path / "trees.txt").read_bytes()


@pytest.mark.parametrize("part", [0.0, 0.02, 0.1, 0.3])
def test_a_model_that_was_cut_off_is_refused(
    ranker: TreeRanker, tmp_path: Path, capfd: pytest.CaptureFixture[str], part: float
) -> None:
    path = tmp_path / "trees.txt"
    ranker.save(path)
    model = path.read_bytes()
    path.write_bytes(model[: int(part * model.index(b"end of trees"))])
    with pytest.raises(BundleError, match=r"trees.txt must be a LightGBM model .* train again"):
        TreeRanker.load(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", [b"{}", b"tree\n", bytes(range(256)), pickle.dumps([1, 2])])
def test_a_file_that_is_not_a_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trees.txt"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="must be a LightGBM model as text"):
        TreeRanker.load(path)


def test_what_lightgbm_itself_refuses_is_a_broken_bundle(tmp_path: Path) -> None:
    path = tmp_path / "trees.txt"
    path.write_text("tree\nversion=v4\n\nend of trees\n")
    with pytest.raises(BundleError, match=r"number of classes.*train again"):
        TreeRanker.load(path)


def test_contributions_and_their_expectation_add_up_to_the_score(ranker: TreeRanker) -> None:
    values = features(30)
    found = ranker.contributions(values)
    assert found.shape == values.shape
    expectation = ranker(values) - found.sum(dim=1)
    torch.testing.assert_close(expectation, expectation[:1].expand(30), atol=1e-5, rtol=1e-5)
    assert not found[:, [2, 4]].any(), "features that never varied"
    assert found[:, 1].abs().mean() > found[:, 0].abs().mean()


def test_candidates_are_scored_alone_whatever_the_shape(ranker: TreeRanker) -> None:
    values = features(24)
    shaped = ranker(values.view(2, 3, 4, -1))
    assert shaped.shape == (2, 3, 4)
    assert shaped.dtype == torch.float32
    assert torch.equal(shaped.flatten(), ranker(values))
    assert torch.equal(ranker(values[7]), ranker(values)[7])
    assert torch.equal(ranker(values.T.contiguous().T), ranker(values))


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 4)])
def test_no_candidates_have_no_scores(ranker: TreeRanker, shape: tuple[int, ...]) -> None:
    assert ranker(features(*shape)).shape == shape


def test_no_candidates_have_no_contributions(ranker: TreeRanker) -> None:
    assert ranker.contributions(features(0)).shape == (0, len(NAMES))


def test_the_number_of_threads_of_a_prediction_changes_no_score(
    ranker: TreeRanker, tmp_path: Path
) -> None:
    both = TreeRanker(ranker._booster, threads=2)
    assert torch.equal(both(features(200)), ranker(features(200)))
    assert ranker.to("cpu") is ranker


@pytest.mark.parametrize("method", ["__call__", "contributions"])
def test_another_number_of_features_is_refused(ranker: TreeRanker, method: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"features must have 5 columns, got \(2, 4\)"):
        getattr(ranker, method)(torch.zeros(2, 4))


def test_training_prints_nothing_even_where_nothing_can_be_learnt(
    capfd: pytest.CaptureFixture[str],
) -> None:
    queries = planted(0)._replace(relevance=np.zeros(N_QUERIES * N_CANDIDATES, dtype=np.float32))
    found = train_trees(queries, CONFIG, NAMES, seed=0, threads=1)
    assert found(features(4)).tolist() == [0.0] * 4
    assert set(found.importance().values()) == {0.0}
    assert capfd.readouterr() == ("", "")


def test_queries_of_different_lengths_are_kept_apart() -> None:
    """Answers are the larger of two candidates; sizes of other queries must not shift them."""
    generator = np.random.default_rng(0)
    counts = np.tile([2, 5, 2, 9], 40)
    values = generator.normal(size=(int(counts.sum()), 1)).astype(np.float32)
    ends = counts.cumsum()
    level = np.repeat(generator.normal(size=len(counts)) * 10, counts)[:, None]
    relevance = np.zeros(len(values), dtype=np.float32)
    for end, count in zip(ends, counts, strict=True):
        relevance[end - count + values[end - count : end, 0].argmax()] = 1.0
    rows = np.concatenate([values, np.float32(level)], axis=1)
    ranker = train_trees(
        TreeQueries(rows, relevance, counts), CONFIG, ["value", "level"], seed=0, threads=1
    )
    assert next(iter(ranker.importance())) == "value"
