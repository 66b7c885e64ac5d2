import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.data.interactions import EMPTY_HISTORY, History
from recsys.models.ranker import LIMIT, Ranker
from recsys.models.user_encoder import UserEncoder, UserEncoderSpec
from recsys.ranking.features import FEATURES, ranking_features
from recsys.ranking.item_table import ItemTable
from recsys.ranking.rankers import SimpleRanker
from recsys.ranking.scoring import Scores, UserRanker, encode_users
from tests.recsys.ranking.planted_tables import DAY, NOW, history, item_table, profiles_of

N, DIM, N_FEATURES = 10, 6, len(FEATURES)


@pytest.fixture
def table() -> ItemTable:
    return item_table(N, DIM)


@pytest.fixture
def network() -> Ranker:
    """Return an untrained network of some scale."""
    torch.manual_seed(1)
    network = Ranker(N_FEATURES, hidden=8)
    network.mean.copy_(torch.rand(N_FEATURES))
    network.deviation.copy_(1.0 + torch.rand(N_FEATURES))
    return network


@pytest.fixture
def encoder() -> UserEncoder:
    torch.manual_seed(2)
    spec = UserEncoderSpec(width=8, heads=2, depth=1, history_length=5)
    encoder = UserEncoder(DIM, n_kinds=2, spec=spec)
    with torch.no_grad():  # the correction starts at zero
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder


@pytest.fixture
def ranker(encoder: UserEncoder, network: Ranker) -> UserRanker:
    return UserRanker(encoder, network)


EVENTS = [(3, 0, 40.0), (1, 1, 9.0), (2, 0, 8.0), (1, 0, 1.0)]
LATER = [(7, 0, 0.0), (8, 1, -3.0)]
EVERYTHING = torch.arange(N)


def small_features(n: int = 20) -> Tensor:
    """Return features that no limit touches."""
    return torch.rand(n, N_FEATURES, generator=torch.Generator().manual_seed(2)) * 2 - 0.5


def linear(network: Ranker) -> None:
    """Leave the linear part of a ranker alone."""
    with torch.no_grad():
        for parameter in network.deep[-1].parameters():
            parameter.zero_()


def score(ranker: UserRanker, met: History, candidates: Tensor, table: ItemTable) -> Scores:
    """Return the scores (C,) and features (C, F) of one user alone."""
    profiles = ranker.profiles([met], NOW, table)
    return Scores(*(part[0] for part in ranker.score(profiles, candidates, table)))


def vector(ranker: UserRanker, met: History, now_us: int, table: ItemTable) -> Tensor:
    """Return the user vector of one user alone (D,)."""
    return encode_users(ranker.encoder, [met], np.array([now_us]), table.embeddings)[0].detach()


def test_a_score_is_the_ranker_output_for_the_features(
    ranker: UserRanker, network: Ranker, table: ItemTable
) -> None:
    candidates = torch.tensor([4, 0, 9])
    met = history(*EVENTS)
    found = score(ranker, met, candidates, table)
    profiles = profiles_of([met], table, vectors=vector(ranker, met, NOW, table)[None])
    features = ranking_features(profiles, candidates, table)[0]
    torch.testing.assert_close(found.features, features)
    torch.testing.assert_close(found.scores, network(features).detach())


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


def test_networks_are_in_evaluation_mode_and_nothing_has_a_gradient(
    encoder: UserEncoder, network: Ranker, table: ItemTable
) -> None:
    again = UserRanker(encoder.train(), network.train())
    one, other = (score(again, history(*EVENTS), EVERYTHING, table) for _ in range(2))
    assert torch.equal(one.scores, other.scores)
    assert not one.scores.requires_grad


def test_users_scored_together_are_as_those_scored_alone(
    ranker: UserRanker, table: ItemTable
) -> None:
    users = [history(*EVENTS), EMPTY_HISTORY, history(*EVENTS[2:], *LATER)]
    together = ranker.score(ranker.profiles(users, NOW, table), EVERYTHING, table)
    assert together.scores.shape == (3, N)
    for row, met in enumerate(users):
        alone = score(ranker, met, EVERYTHING, table)
        torch.testing.assert_close(together.scores[row], alone.scores, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(together.features[row], alone.features, atol=1e-5, rtol=1e-5)


def test_profiles_of_users_with_moments_of_their_own_are_those_of_each(
    ranker: UserRanker, table: ItemTable
) -> None:
    users, moments = [history(*EVENTS)] * 2, [NOW, NOW - 5 * DAY]
    both = ranker.score(ranker.profiles(users, np.array(moments), table), EVERYTHING, table)
    for row, moment in enumerate(moments):
        alone = ranker.score(ranker.profiles(users[:1], moment, table), EVERYTHING, table)
        torch.testing.assert_close(both.scores[row], alone.scores[0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(both.scores[0], both.scores[1])


def test_answers_without_the_users_own_items_may_have_another_ranker(
    encoder: UserEncoder, network: Ranker, table: ItemTable
) -> None:
    other = SimpleRanker("EASE")
    both = UserRanker(encoder, network, other)
    profiles = both.profiles([history(*EVENTS)], NOW, table)
    found = both.score(profiles, EVERYTHING, table)
    new = both.score(profiles, EVERYTHING, table, exclude_seen=True)
    assert torch.equal(found.features, new.features)
    torch.testing.assert_close(found.scores, network(found.features).detach())
    torch.testing.assert_close(new.scores, other(new.features))
    features = new.features[0]
    for named in both.top_features(features, exclude_seen=True):
        assert {name for name, _ in named} <= {"ease"}
    assert both.top_features(features) == UserRanker(encoder, network).top_features(features)


def test_without_another_ranker_all_answers_have_the_same(
    ranker: UserRanker, table: ItemTable
) -> None:
    profiles = ranker.profiles([history(*EVENTS)], NOW, table)
    one, other = (
        ranker.score(profiles, EVERYTHING, table, exclude_seen=seen) for seen in (False, True)
    )
    assert torch.equal(one.scores, other.scores)


def test_users_encoded_together_equal_users_encoded_alone(
    ranker: UserRanker, table: ItemTable
) -> None:
    histories = [history(*EVENTS), EMPTY_HISTORY, history(*EVENTS[2:], *LATER)]
    now_us = np.array([NOW, NOW, NOW - 2 * DAY])
    together = encode_users(ranker.encoder, histories, now_us, table.embeddings).detach()
    assert together.shape == (3, DIM)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    for found, one, now in zip(together, histories, now_us.tolist(), strict=True):
        torch.testing.assert_close(found, vector(ranker, one, now, table))


def test_each_history_is_read_up_to_its_own_moment(ranker: UserRanker, table: ItemTable) -> None:
    moments = np.array([NOW, NOW - 5 * DAY])
    both = encode_users(ranker.encoder, [history(*EVENTS)] * 2, moments, table.embeddings).detach()
    without = history(*EVENTS[:-1])  # the last is one day old, so later than the second moment
    torch.testing.assert_close(both[1], vector(ranker, without, NOW - 5 * DAY, table))
    assert not torch.allclose(both[0], both[1], atol=1e-3)


def test_a_moment_is_needed_for_every_user(ranker: UserRanker, table: ItemTable) -> None:
    with pytest.raises(ValueError, match=r"one moment per history, shape \(2,\), got \(1,\)"):
        encode_users(ranker.encoder, [EMPTY_HISTORY] * 2, np.array([NOW]), table.embeddings)


def test_only_features_that_raised_a_score_are_named(ranker: UserRanker) -> None:
    features = small_features(6)
    for named in ranker.top_features(features, n=N_FEATURES):
        assert all(value > 0 for _, value in named)
        assert len(named) < N_FEATURES


def test_the_features_that_raised_a_score_most_are_named_largest_first(
    ranker: UserRanker, network: Ranker
) -> None:
    linear(network)
    with torch.no_grad():
        network.wide.weight.zero_()
        network.wide.weight[0, :3] = torch.tensor([1.0, 3.0, 2.0])
        network.mean.zero_()
        network.deviation.fill_(1.0)
    features = torch.zeros(2, N_FEATURES)
    features[0, :3] = torch.tensor([0.5, 0.5, 0.5])
    features[1, :3] = torch.tensor([LIMIT - 1, 0.1, 1.0])
    first, second = ranker.top_features(features, n=2)
    assert [name for name, _ in first] == [FEATURES[1], FEATURES[2]]
    assert [value for _, value in first] == pytest.approx([1.5, 1.0])
    assert [name for name, _ in second] == [FEATURES[0], FEATURES[2]]
    assert [value for _, value in second] == pytest.approx([4.0, 2.0])


def test_three_features_are_named_by_default(ranker: UserRanker, network: Ranker) -> None:
    features = small_features()
    found = ranker.top_features(features)
    contributions = network.contributions(features)
    for reasons, row in zip(found, contributions, strict=True):
        assert [value for _, value in reasons] == sorted(row.tolist(), reverse=True)[:3]
