from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.config import RankerConfig, TreesConfig
from recsys.data.interactions import History, Interactions
from recsys.errors import TrainingError
from recsys.models.ranker import Ranker, build_ranker
from recsys.models.trees import TreeRanker
from recsys.ranking.features import COLD_VALUES, FEATURES
from recsys.training.ranking import (
    RankingExamples,
    _RankerModule,
    _tree_queries,
    answers_between,
    fit_trees,
    sample_examples,
    train_ranker,
)
from tests.recsys.training.planted import hit_rate, planted
from tests.recsys.training.snapshots import (
    CUT,
    DAY,
    items_of,
    purchases,
    served_features,
    snapshot,
    snapshot_of,
    untrained_encoder,
)
from vision.training.run import TrainingRun

CONFIG = RankerConfig(
    hidden=8,
    epochs=12,
    batch_size=20,
    learning_rate=2e-2,
    patience=None,
    hide_events=0.0,
    trees=TreesConfig(trees=25, min_candidates=5),
)
VALIDATION = ("last_similarity", "user_affinity", "users_ever")  # signals of the validation queries


def test_answers_are_distinct_items_from_the_start_until_before_the_end() -> None:
    events = [(0, 5, 9), (0, 3, 10), (0, 1, 15), (0, 3, 19), (0, 4, 20), (2, 7, 19)]
    users, rows, times = (np.array(column) for column in zip(*events, strict=True))
    targets = Interactions(
        ["a", "b", "c"], ["buy"], 9, users, rows, np.zeros(6, int), times, np.ones(6, np.float32)
    )
    assert [rows.tolist() for rows in answers_between(targets, 10, 20)] == [[1, 3], [], [7]]


def test_no_answer_is_labelled_a_negative() -> None:
    shot = snapshot()
    examples = sample_examples(shot, untrained_encoder(), n_queries=99, n_candidates=20, seed=0)
    assert examples.features.shape == (10, 20, len(FEATURES))
    for user, (items, relevance) in enumerate(
        zip(items_of(examples.features), examples.relevance, strict=True)
    ):
        assert len(set(items.tolist())) == 20
        assert sorted(items[relevance == 1].tolist()) == shot.answers[user].tolist()
        assert set(relevance.tolist()) == {0.0, 1.0}


def test_answers_beyond_half_of_the_candidates_are_labelled_where_they_are_drawn() -> None:
    shot = snapshot()
    greedy = snapshot_of(list(shot.histories[:1]), [np.arange(95)])
    examples = sample_examples(greedy, untrained_encoder(), n_queries=1, n_candidates=20, seed=0)
    np.testing.assert_array_equal(
        examples.relevance[0].numpy(), items_of(examples.features)[0] < 95
    )


def test_features_are_those_that_the_service_computes() -> None:
    shot = snapshot()
    examples = sample_examples(shot, untrained_encoder(), n_queries=99, n_candidates=20, seed=0)
    for user, features in enumerate(examples.features):
        wanted = served_features(shot, user)[items_of(features)]
        torch.testing.assert_close(features, wanted)


def test_events_after_the_cut_change_nothing() -> None:
    shot = snapshot()
    later = [
        History(*(np.append(column, more) for column, more in zip(one, (7, 0, CUT), strict=True)))
        for one in shot.histories
    ]
    knowing = replace(shot, histories=later)
    one, other = (
        sample_examples(s, untrained_encoder(), n_queries=9, n_candidates=20, seed=0)
        for s in (shot, knowing)
    )
    torch.testing.assert_close(one.features, other.features)
    assert torch.equal(one.relevance, other.relevance)


def test_each_user_is_asked_at_a_moment_of_their_own() -> None:
    met = purchases([3, 4], [9, 5])
    shot = snapshot_of([met, met, purchases([3], [9])], [np.array([7])] * 3)
    shot = replace(shot, moments_us=np.array([CUT, CUT + 2 * DAY, CUT - 7 * DAY]))
    features = sample_examples(
        shot, untrained_encoder(), n_queries=9, n_candidates=100, seed=0
    ).features
    ages = features[..., FEATURES.index("age")].expm1()
    for user, days in enumerate((0, 2)):
        np.testing.assert_allclose(np.sort(ages[user]), np.arange(100) + days, rtol=1e-4, atol=1e-4)
    # The third user's moment is before the second event of the first two: they know no more.
    away = features[..., FEATURES.index("days_away")].expm1() * shot.table.tempo.pause_days
    torch.testing.assert_close(away[:, 0], torch.tensor([5.0, 7.0, 2.0]))


def test_negatives_are_uniform_whatever_their_features() -> None:
    """An order statistic of any feature would show as a share far from that of the others."""
    shot = snapshot()
    answers = shot.answers[0]
    one = snapshot_of(list(shot.histories[:1]), [answers])
    drawn = np.zeros(100, dtype=np.int64)
    for seed in range(300):
        examples = sample_examples(
            one, untrained_encoder(), n_queries=1, n_candidates=34, seed=seed
        )
        drawn[items_of(examples.features[0])] += 1
    assert drawn[answers].tolist() == [300] * len(answers)
    others = np.delete(drawn, answers)
    wanted = 300 * (34 - len(answers)) / len(others)  # 100 of 300, by 8 standard deviations
    assert np.abs(others - wanted).max() < 5 * np.sqrt(wanted * 2 / 3)
    for name in ("user_affinity", "ease", "users_ever", "max_similarity"):
        values = served_features(one, 0)[:, FEATURES.index(name)].numpy()
        top = np.setdiff1d(np.argsort(-values)[:20], answers)
        assert drawn[top].mean() == pytest.approx(wanted, rel=0.06)


def test_the_number_of_queries_is_limited_and_the_seed_chooses_them() -> None:
    shot = snapshot()
    drawn = [
        sample_examples(shot, untrained_encoder(), n_queries=3, n_candidates=20, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert drawn[0].features.shape == (3, 20, len(FEATURES))
    assert torch.equal(drawn[0].features, drawn[1].features)
    assert not torch.equal(drawn[0].features, drawn[2].features)


def test_in_a_small_shop_all_items_are_candidates() -> None:
    examples = sample_examples(
        snapshot(), untrained_encoder(), n_queries=3, n_candidates=500, seed=0
    )
    assert np.sort(items_of(examples.features), axis=1).tolist() == [list(range(100))] * 3


def test_a_window_without_answers_on_offer_is_an_error() -> None:
    shot = snapshot()
    idle = snapshot_of(list(shot.histories[10:]), list(shot.answers[10:]))
    with pytest.raises(TrainingError, match="users with events of the target kinds after a cut"):
        sample_examples(idle, untrained_encoder(), n_queries=3, n_candidates=20, seed=0)


def fitted(
    folder: Path, examples: RankingExamples, config: RankerConfig = CONFIG, seed: int = 0
) -> Ranker:
    validation = planted(9, signals=VALIDATION)
    parts = [
        RankingExamples(examples.features[part], examples.relevance[part])
        for part in (slice(0, 15), slice(15, None))
    ]
    run = TrainingRun(folder, seed, torch.device("cpu"))
    return train_ranker(parts, validation, config, run)[0]


def weights(ranker: Ranker) -> Tensor:
    return torch.cat([parameter.detach().ravel() for parameter in ranker.parameters()])


def test_a_planted_feature_is_learned_and_ranks_new_queries(tmp_path: Path) -> None:
    ranker = fitted(tmp_path, planted(0, signals=("last_similarity",), n_queries=120))
    unseen = planted(1, signals=("last_similarity",), n_queries=200)
    torch.manual_seed(0)
    assert hit_rate(build_ranker(CONFIG, len(FEATURES)).eval(), unseen) < 0.5
    assert hit_rate(ranker, unseen) > 0.9
    assert not ranker.training


@pytest.mark.parametrize(
    ("n_queries", "batch_size", "steps"), [(40, 64, 8), (5, 64, 5), (160, 8, 20), (170, 64, 9)]
)
def test_an_epoch_has_eight_steps_or_more_where_there_are_queries_for_them(
    n_queries: int, batch_size: int, steps: int, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"epochs": 2, "batch_size": batch_size})
    fitted(tmp_path, planted(0, signals=("users_ever",), n_queries=n_queries), config)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 2 * steps


def test_features_are_standardised_by_all_training_queries(tmp_path: Path) -> None:
    examples = planted(0, signals=())
    ranker = fitted(tmp_path, examples, CONFIG.model_copy(update={"epochs": 1}))
    flat = examples.features.reshape(-1, len(FEATURES))
    torch.testing.assert_close(ranker.mean, flat.mean(dim=0))
    torch.testing.assert_close(ranker.deviation, flat.std(dim=0), rtol=5e-3, atol=0)


def test_padding_of_cuts_with_fewer_candidates_is_ignored(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"epochs": 1, "batch_size": 64, "hide_events": 0.0})
    validation = planted(9, signals=("users_ever",))
    many, few = planted(0, signals=("users_ever",)), planted(1, signals=("users_ever",))
    few = RankingExamples(few.features[:, :7], few.relevance[:, :7])
    ranker, _ = train_ranker(
        [many, few], validation, config, TrainingRun(tmp_path, 0, torch.device("cpu"))
    )
    flat = torch.cat([one.features.reshape(-1, len(FEATURES)) for one in (many, few)])
    torch.testing.assert_close(ranker.mean, flat.mean(dim=0))
    # Candidates that nobody has, whatever they look like, are in no list.
    absent = torch.full((len(many.relevance), 3), -1.0)
    padded = RankingExamples(
        torch.cat([many.features, torch.full((*absent.shape, len(FEATURES)), 9.0)], dim=1),
        torch.cat([many.relevance, absent], dim=1),
    )
    rows = torch.arange(len(many.relevance))
    losses = [
        float(_RankerModule(ranker, one, one, config, n_steps=1).training_step(rows, 0).detach())
        for one in (many, padded)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_with_all_events_hidden_a_ranker_learns_from_features_of_new_items(tmp_path: Path) -> None:
    examples = planted(0, signals=("users_ever", "user_affinity"), n_queries=120)
    config = CONFIG.model_copy(update={"hide_events": 0.999, "epochs": 12})
    hiding = fitted(tmp_path / "a", examples, config)
    seeing = fitted(tmp_path / "b", planted(0, signals=("users_ever",), n_queries=120))
    only = {name: planted(3, signals=(name,)) for name in ("users_ever", "user_affinity")}
    assert hit_rate(hiding, only["user_affinity"]) > 0.7  # chance is 0.1
    assert hit_rate(hiding, only["users_ever"]) < 0.4
    assert hit_rate(seeing, only["users_ever"]) > 0.9


def listwise(logits: Tensor, relevance: Tensor, mask: Tensor) -> float:
    """Return the mean of -log p(answer) over the candidates of the mask, by loops."""
    losses = []
    for scores, labels, counted in zip(logits, relevance, mask, strict=True):
        total = sum(float(s.exp()) for s, c in zip(scores, counted, strict=True) if c)
        answers = [float(s) for s, y, c in zip(scores, labels, counted, strict=True) if c and y]
        if answers:
            losses.append(sum(np.log(total) - one for one in answers) / len(answers))
    return float(np.mean(losses))


def loss_by_loops(ranker: Ranker, features: Tensor, relevance: Tensor, discovery: float) -> float:
    with torch.no_grad():
        logits = ranker(features)
    new = features[..., FEATURES.index("own_purchases")] == 0
    everything = torch.ones_like(new)
    return listwise(logits, relevance, everything) + discovery * listwise(logits, relevance, new)


@pytest.mark.parametrize("hide_events", [0.0, 0.999999])
def test_hiding_events_changes_only_the_features_that_need_events(
    hide_events: float,
) -> None:
    examples = planted(0, signals=("users_ever", "user_affinity"))
    config = CONFIG.model_copy(update={"hide_events": hide_events})
    torch.manual_seed(0)
    ranker = build_ranker(config, len(FEATURES)).eval()
    module = _RankerModule(ranker, examples, examples, config, n_steps=1)
    seen = examples.features.clone()
    if hide_events:
        for name, value in COLD_VALUES.items():
            seen[..., FEATURES.index(name)] = value
    rows = torch.tensor([7, 3, 30])
    wanted = loss_by_loops(ranker, seen[rows], examples.relevance[rows], config.discovery_weight)
    assert float(module.training_step(rows, 0).detach()) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("discovery_weight", [0.0, 0.5, 2.0])
def test_the_loss_adds_that_of_all_candidates_and_that_of_new_candidates(
    discovery_weight: float, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(
        update={"epochs": 1, "batch_size": 64, "discovery_weight": discovery_weight}
    )
    ranker = fitted(tmp_path, planted(0, signals=("users_ever",)), config)
    validation = planted(9, signals=VALIDATION)
    wanted = loss_by_loops(ranker, validation.features, validation.relevance, discovery_weight)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]
    (best,) = (state["best_model_score"] for key, state in saved.items() if "'validation" in key)
    assert float(best) == pytest.approx(wanted, rel=1e-4)


def test_discovery_adds_nothing_if_all_answers_were_taken_before(tmp_path: Path) -> None:
    examples = planted(0, signals=("users_ever",))
    features = examples.features.clone()
    features[..., FEATURES.index("own_purchases")] = examples.relevance
    configs = [
        CONFIG.model_copy(update={"discovery_weight": weight, "epochs": 1}) for weight in (0.0, 5.0)
    ]
    repeats, mixed = (
        [
            weights(fitted(tmp_path / f"{name}{n}", RankingExamples(x, examples.relevance), config))
            for n, config in enumerate(configs)
        ]
        for name, x in (("repeats", features), ("mixed", examples.features))
    )
    assert torch.equal(*repeats)
    assert not torch.equal(*mixed)


def test_the_ranker_depends_on_its_seed_and_leaves_the_global_generator_alone(
    tmp_path: Path,
) -> None:
    examples = planted(0, signals=("users_ever",))
    config = CONFIG.model_copy(update={"epochs": 1, "hide_events": 0.5})
    before = torch.get_rng_state()
    one, same, other = (
        weights(fitted(tmp_path / str(n), examples, config, seed=seed))
        for n, seed in enumerate((0, 0, 1))
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_leaves_the_examples_as_they_were(tmp_path: Path) -> None:
    examples = planted(0, signals=("users_ever",))
    before = examples.features.clone()
    fitted(tmp_path, examples, CONFIG.model_copy(update={"epochs": 1, "hide_events": 0.5}))
    assert torch.equal(examples.features, before)


def fitted_trees(
    examples: RankingExamples, config: RankerConfig = CONFIG, *, seed: int = 0
) -> TreeRanker:
    parts = [
        RankingExamples(examples.features[part], examples.relevance[part])
        for part in (slice(0, 15), slice(15, None))
    ]
    return fit_trees(parts, config, seed=seed)


def test_trees_learn_a_planted_feature_and_rank_new_queries() -> None:
    trees = fitted_trees(planted(0, signals=("last_similarity",), n_queries=120))
    unseen = planted(1, signals=("last_similarity",), n_queries=200)
    assert hit_rate(trees, unseen) > 0.9  # chance is 0.1
    assert next(iter(trees.importance())) == "last_similarity"


def test_trees_with_events_hidden_learn_from_features_of_new_items() -> None:
    examples = planted(0, signals=("users_ever", "user_affinity"), n_queries=120)
    hiding = fitted_trees(examples, CONFIG.model_copy(update={"hide_events": 0.999}))
    only = {name: planted(3, signals=(name,), n_queries=200) for name in ("users_ever", "ials")}
    affine = planted(3, signals=("user_affinity",), n_queries=200)
    assert hit_rate(hiding, affine) > 0.7
    assert max(hit_rate(hiding, one) for one in only.values()) < 0.3
    assert hit_rate(fitted_trees(planted(0, signals=("users_ever",))), only["users_ever"]) > 0.9


def test_trees_read_every_candidate_but_padding_and_hide_the_events_of_some() -> None:
    examples = planted(0, signals=("users_ever",), n_queries=400)
    features = torch.cat([examples.features, torch.full((400, 2, len(FEATURES)), 9.0)], dim=1)
    relevance = torch.cat([examples.relevance, torch.full((400, 2), -1.0)], dim=1)
    queries = _tree_queries(RankingExamples(features, relevance), hide=0.25, seed=0)
    assert queries.counts.tolist() == [10] * 400
    np.testing.assert_array_equal(queries.relevance, examples.relevance.ravel().numpy())
    seen = examples.features.reshape(-1, len(FEATURES)).numpy()
    cold = seen.copy()
    for name, value in COLD_VALUES.items():
        cold[:, FEATURES.index(name)] = value
    hidden = (queries.features != seen).any(axis=1)
    assert hidden.mean() == pytest.approx(0.25, abs=0.03)
    np.testing.assert_array_equal(queries.features, np.where(hidden[:, None], cold, seen))


def test_trees_depend_on_their_seed_and_leave_the_examples_as_they_were() -> None:
    examples = planted(0, signals=("users_ever",))
    before = examples.features.clone()
    config = CONFIG.model_copy(update={"hide_events": 0.5})
    one, same, other = (
        fitted_trees(examples, config, seed=seed)(examples.features) for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(examples.features, before)


def test_the_seed_of_trees_hides_other_candidates_in_each_snapshot() -> None:
    examples = planted(0, signals=("users_ever",))
    one, other = (_tree_queries(examples, hide=0.5, seed=seed).features for seed in (0, 1))
    assert not np.array_equal(one, other)
