import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.data.interactions import EMPTY_HISTORY, MICROSECONDS_PER_DAY, History
from recsys.models.ranker import LIMIT, Ranker
from recsys.models.user_encoder import UserEncoder, UserEncoderSpec
from recsys.ranking.features import FEATURES, ItemTable, ranking_features
from recsys.ranking.scoring import Scores, UserRanker, encode_users

DAY = MICROSECONDS_PER_DAY
NOW = 1_000 * DAY
N, DIM, N_FEATURES = 10, 6, len(FEATURES)


@pytest.fixture
def table() -> ItemTable:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.nn.functional.normalize(torch.randn(N, DIM, generator=generator), dim=1)
    return ItemTable(
        embeddings=embeddings,
        log_prices=torch.rand(N, generator=generator),
        categories=torch.arange(N)[:, None].repeat(1, 4) % 3,
        n_categories=3,
        created_us=NOW - torch.arange(N) * DAY,
        popularity=torch.rand(N, 3, generator=generator),
        neighbour_rows=torch.randint(N, (N, 3), generator=generator),
        neighbour_weights=torch.rand(N, 3, generator=generator),
        target_kinds=torch.tensor([True, False]),
    )


@pytest.fixture
def ranker() -> UserRanker:
    """Return untrained networks whose scale is that of the features of every item."""
    torch.manual_seed(1)
    spec = UserEncoderSpec(width=8, heads=2, depth=1, history_length=5)
    encoder = UserEncoder(DIM, n_kinds=2, spec=spec)
    with torch.no_grad():  # the correction starts at zero
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    network = Ranker(N_FEATURES, hidden=8)
    network.mean.copy_(torch.rand(N_FEATURES))
    network.deviation.copy_(1.0 + torch.rand(N_FEATURES))
    return UserRanker(encoder, network)


def history(*events: tuple[int, int, float]) -> History:
    """Events as (item row, kind, days before NOW), oldest first."""
    rows, kinds, ages = zip(*events, strict=True)
    times = [round(NOW - age * DAY) for age in ages]
    return History(*(np.array(column, dtype=np.int64) for column in (rows, kinds, times)))


EVENTS = [(3, 0, 40.0), (1, 1, 9.0), (2, 0, 8.0), (1, 0, 1.0)]
LATER = [(7, 0, 0.0), (8, 1, -3.0)]
EVERYTHING = torch.arange(N)


def small_features(n: int = 20) -> Tensor:
    """Return features that no limit touches."""
    return torch.rand(n, N_FEATURES, generator=torch.Generator().manual_seed(2)) * 2 - 0.5


def linear(network: Ranker) -> None:
    """Leave the linear part of a ranker alone."""
    with torch.no_grad():
        network.deep[-1].weight.zero_()
        network.deep[-1].bias.zero_()


def score(ranker: UserRanker, met: History, candidates: Tensor, table: ItemTable) -> Scores:
    """Return the scores (C,) and features (C, F) of one user alone."""
    return Scores(*(part[0] for part in ranker.score([met], candidates, NOW, table)))


def test_a_score_is_the_ranker_output_for_the_features(
    ranker: UserRanker, table: ItemTable
) -> None:
    candidates = torch.tensor([4, 0, 9])
    found = score(ranker, history(*EVENTS), candidates, table)
    vector = ranker.user_vectors([history(*EVENTS)], NOW, table)[0]
    features = ranking_features([history(*EVENTS)], candidates, NOW, table, vector[None])[0]
    assert torch.equal(found.features, features)
    torch.testing.assert_close(found.scores, ranker.ranker(features).detach())


def test_the_score_of_a_candidate_does_not_depend_on_the_others(
    ranker: UserRanker, table: ItemTable
) -> None:
    whole = score(ranker, history(*EVENTS), EVERYTHING, table).scores
    part = score(ranker, history(*EVENTS), torch.tensor([6, 2]), table).scores
    torch.testing.assert_close(part, whole[[6, 2]])


def test_events_at_or_after_now_change_no_score(ranker: UserRanker, table: ItemTable) -> None:
    before = score(ranker, history(*EVENTS), EVERYTHING, table)
    later = score(ranker, history(*EVENTS, *LATER), EVERYTHING, table)
    assert torch.equal(later.scores, before.scores)
    assert torch.equal(later.features, before.features)


def test_a_newcomer_has_finite_scores(ranker: UserRanker, table: ItemTable) -> None:
    found = score(ranker, EMPTY_HISTORY, EVERYTHING, table)
    assert found.scores.shape == (N,)
    assert found.features.shape == (N, N_FEATURES)
    assert found.scores.isfinite().all()


def test_the_networks_are_in_evaluation_mode(ranker: UserRanker, table: ItemTable) -> None:
    again = UserRanker(ranker.encoder.train(), ranker.ranker.train())
    one, other = (score(again, history(*EVENTS), EVERYTHING, table) for _ in range(2))
    assert torch.equal(one.scores, other.scores)
    assert not one.scores.requires_grad


def test_users_scored_together_are_as_those_scored_alone(
    ranker: UserRanker, table: ItemTable
) -> None:
    users = [history(*EVENTS), EMPTY_HISTORY, history(*EVENTS[2:], *LATER)]
    together = ranker.score(users, EVERYTHING, NOW, table)
    assert together.scores.shape == (3, N)
    for row, met in enumerate(users):
        alone = score(ranker, met, EVERYTHING, table)
        torch.testing.assert_close(together.scores[row], alone.scores, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(together.features[row], alone.features, atol=1e-6, rtol=1e-5)


def test_user_vectors_at_hand_are_not_computed_again(ranker: UserRanker, table: ItemTable) -> None:
    other = ranker.user_vectors([EMPTY_HISTORY], NOW, table)
    found = ranker.score([history(*EVENTS)], EVERYTHING, NOW, table, user_vectors=other)
    wanted = table.embeddings @ other[0]
    torch.testing.assert_close(found.features[0, :, FEATURES.index("user_affinity")], wanted)


def test_users_encoded_together_equal_users_encoded_alone(
    ranker: UserRanker, table: ItemTable
) -> None:
    histories = [history(*EVENTS), EMPTY_HISTORY, history(*EVENTS[2:], *LATER)]
    now_us = np.array([NOW, NOW, NOW - 2 * DAY])
    together = encode_users(ranker.encoder, histories, now_us, table.embeddings).detach()
    assert together.shape == (3, DIM)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    for vector, one, now in zip(together, histories, now_us.tolist(), strict=True):
        torch.testing.assert_close(vector, ranker.user_vectors([one], now, table)[0])


def test_each_history_is_read_up_to_its_own_moment(ranker: UserRanker, table: ItemTable) -> None:
    moments = np.array([NOW, NOW - 5 * DAY])
    both = encode_users(ranker.encoder, [history(*EVENTS)] * 2, moments, table.embeddings).detach()
    without = history(*EVENTS[:-1])  # the last is one day old, so later than the second moment
    torch.testing.assert_close(both[1], ranker.user_vectors([without], NOW - 5 * DAY, table)[0])
    assert not torch.allclose(both[0], both[1], atol=1e-3)


def test_a_moment_is_needed_for_every_user(ranker: UserRanker, table: ItemTable) -> None:
    with pytest.raises(ValueError, match=r"one moment per history, shape \(2,\), got \(1,\)"):
        encode_users(ranker.encoder, [EMPTY_HISTORY] * 2, np.array([NOW]), table.embeddings)


def test_contributions_of_a_linear_ranker_add_up_to_the_logit(ranker: UserRanker) -> None:
    linear(ranker.ranker)
    features = small_features()
    found = ranker.contributions(features)
    weights = ranker.ranker.wide.weight[0].detach()
    wanted = weights * (features - ranker.ranker.mean) / ranker.ranker.deviation
    torch.testing.assert_close(found, wanted)
    logits = ranker.ranker(features).detach()
    torch.testing.assert_close(found.sum(dim=1) + ranker.ranker.wide.bias.detach(), logits)


def test_contributions_are_first_order(ranker: UserRanker) -> None:
    features = small_features(6).double()
    network = ranker.ranker.double()
    found = ranker.contributions(features)
    step = 1e-6
    for column in range(N_FEATURES):
        nudged = features.clone()
        nudged[:, column] += step
        with torch.no_grad():
            slope = (network(nudged) - network(features)) / step
        wanted = slope * (features[:, column] - network.mean[column])
        torch.testing.assert_close(found[:, column], wanted, rtol=1e-3, atol=1e-6)


def test_a_constant_feature_contributes_zero(ranker: UserRanker) -> None:
    ranker.ranker.deviation[3] = torch.inf
    features = small_features()
    features[:, 3] = 1e3
    found = ranker.contributions(features)
    assert not found[:, 3].any()
    assert found.isfinite().all()
    assert found[:, 4].any()


def test_a_feature_beyond_the_limit_contributes_what_the_limit_does(ranker: UserRanker) -> None:
    linear(ranker.ranker)
    features = small_features()
    features[:, 2] = 1e6
    found = ranker.contributions(features)
    wanted = 5.0 * ranker.ranker.wide.weight[0, 2].detach()
    torch.testing.assert_close(found[:, 2], wanted.expand(len(found)))


def test_only_features_that_raised_a_score_are_named(ranker: UserRanker) -> None:
    features = small_features(6)
    for named in ranker.top_features(features, n=N_FEATURES):
        assert all(value > 0 for _, value in named)
        assert len(named) < N_FEATURES


def test_contributions_leave_the_features_unchanged(ranker: UserRanker) -> None:
    features = small_features()
    before = features.clone()
    ranker.contributions(features)
    assert torch.equal(features, before)
    assert not features.requires_grad
    assert all(parameter.grad is None for parameter in ranker.ranker.parameters())


def test_the_features_that_raised_a_score_most_are_named_largest_first(
    ranker: UserRanker,
) -> None:
    linear(ranker.ranker)
    with torch.no_grad():
        ranker.ranker.wide.weight.zero_()
        ranker.ranker.wide.weight[0, :3] = torch.tensor([1.0, 3.0, 2.0])
        ranker.ranker.mean.zero_()
        ranker.ranker.deviation.fill_(1.0)
    features = torch.zeros(2, N_FEATURES)
    features[0, :3] = torch.tensor([0.5, 0.5, 0.5])
    features[1, :3] = torch.tensor([LIMIT - 1, 0.1, 1.0])
    first, second = ranker.top_features(features, n=2)
    assert [name for name, _ in first] == [FEATURES[1], FEATURES[2]]
    assert [value for _, value in first] == pytest.approx([1.5, 1.0])
    assert [name for name, _ in second] == [FEATURES[0], FEATURES[2]]
    assert [value for _, value in second] == pytest.approx([4.0, 2.0])


def test_three_features_are_named_by_default(ranker: UserRanker) -> None:
    features = small_features()
    found = ranker.top_features(features)
    contributions = ranker.contributions(features)
    for reasons, row in zip(found, contributions, strict=True):
        assert [value for _, value in reasons] == sorted(row.tolist(), reverse=True)[:3]


def test_features_of_another_release_are_refused(ranker: UserRanker) -> None:
    with pytest.raises(ValueError, match=f"features must have {N_FEATURES} columns, got"):
        ranker.contributions(torch.zeros(2, N_FEATURES + 1))
