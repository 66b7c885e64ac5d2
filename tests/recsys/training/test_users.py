from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys.config import UserConfig
from recsys.data.interactions import EMPTY_HISTORY, MICROSECONDS_PER_DAY, History, Interactions
from recsys.errors import TrainingError
from recsys.models.user_encoder import UserEncoder
from recsys.ranking.scoring import encode_users
from recsys.training.users import train_users
from vision.precision import resolve_precision
from vision.training.run import TrainingRun

DAY = MICROSECONDS_PER_DAY
NOW = 400 * DAY
N_ITEMS, N_USERS, DIM = 40, 60, 6
CONFIG = UserConfig(
    history_length=6,
    n_targets=2,
    histories_per_user=3,
    epochs=8,
    patience=None,
    batch_size=32,
    learning_rate=5e-2,
    horizon_days=7.0,
    weight_decay=0.0,
)
ALWAYS = np.zeros(N_ITEMS, dtype=np.int64)
NEVER = np.full(N_ITEMS, 10_000 * DAY)


def in_group(number: int) -> np.ndarray:
    """Return which items belong to a planted group, 0 or 1."""
    return np.arange(N_ITEMS) % 2 == number


def changed(**changes: Any) -> UserConfig:
    return UserConfig.model_validate({**CONFIG.model_dump(), **changes})


def embeddings() -> np.ndarray:
    """Return items whose group is a weak direction among strong ones that do not matter."""
    vectors = np.random.default_rng(0).normal(size=(N_ITEMS, DIM))
    vectors[:, 0] = 0.5 * (2 * in_group(1) - 1.0)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def interactions(events: list[tuple[int, int, int, int]]) -> Interactions:
    """Return events given as (time, user, item, kind)."""
    times, users, rows, kinds = (np.array(column) for column in zip(*sorted(events), strict=True))
    return Interactions(
        user_ids=[f"u{n}" for n in range(N_USERS)],
        kind_names=["buy", "view"],
        n_items=N_ITEMS,
        user_rows=users,
        item_rows=rows,
        kinds=kinds,
        timestamps_us=times,
        quantities=np.ones(len(times), dtype=np.float32),
    )


def faithful(*, n_events: int = 8, kind: int = 0) -> Interactions:
    """Return users who each take items of one group only, a few days apart."""
    rng = np.random.default_rng(1)
    events = []
    for user in range(N_USERS):
        own = np.flatnonzero(in_group(user % 2))
        days = np.sort(rng.uniform(0, 60, n_events))
        events += [
            (int(day * DAY), user, int(item), kind)
            for day, item in zip(days, rng.choice(own, n_events), strict=True)
        ]
    return interactions(events)


def run_in(folder: Path, seed: int = 0) -> TrainingRun:
    return TrainingRun(folder, seed, torch.device("cpu"))


def fitted(
    folder: Path,
    past: Interactions,
    config: UserConfig = CONFIG,
    *,
    available: np.ndarray = ALWAYS,
    seed: int = 0,
) -> UserEncoder:
    return train_users(past, embeddings(), available, config, run_in(folder, seed))


def weights(encoder: UserEncoder) -> torch.Tensor:
    return torch.cat([parameter.detach().ravel() for parameter in encoder.parameters()])


def group_share(encoder: UserEncoder, *, kind: int = 0) -> float:
    """Return the mean share of a new user's own group in the first half of the ranking."""
    rng = np.random.default_rng(2)
    table = torch.from_numpy(embeddings())
    shares = []
    for user in range(40):
        own = in_group(user % 2)
        rows = rng.choice(np.flatnonzero(own), 3, replace=False)
        history = History(rows, np.full(3, kind), NOW - np.array([9, 5, 2]) * DAY)
        with torch.no_grad():
            vector = encode_users(encoder, [history], np.array([NOW]), table)[0]
        first = (table @ vector).argsort(descending=True)[: N_ITEMS // 2]
        shares.append(own[first.numpy()].mean())
    return float(np.mean(shares))


@pytest.mark.parametrize("full_softmax_items", [N_ITEMS, 1])
@pytest.mark.parametrize("depth", [0, 1])
def test_users_of_a_planted_group_are_shown_that_group_first(
    depth: int, full_softmax_items: int, tmp_path: Path
) -> None:
    config = changed(
        depth=depth, width=8, heads=2, full_softmax_items=full_softmax_items, n_negatives=30
    )
    encoder = fitted(tmp_path, faithful(), config)
    assert not encoder.training
    assert group_share(fitted(tmp_path / "0", faithful(kind=1), untaught())) < 0.8
    assert group_share(encoder) > 0.85


def untaught() -> UserConfig:
    """Return a configuration in which views, as targets, teach nothing."""
    return changed(kind_weights={"view": 0.0}, epochs=1)


def test_newcomers_begin_at_the_average_of_the_items_taken(tmp_path: Path) -> None:
    log, still = faithful(), changed(epochs=1, learning_rate=1e-12)
    encoder = train_users(log, embeddings(), ALWAYS, still, run_in(tmp_path))
    typical = embeddings()[log.item_rows].mean(axis=0)
    np.testing.assert_allclose(encoder.newcomer.detach().numpy(), typical, atol=1e-6)


def test_newcomers_are_shown_first_purchases_rather_than_the_most_popular(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    ones, zeros = np.flatnonzero(in_group(1)), np.flatnonzero(in_group(0))
    events = []
    for user in range(N_USERS):
        start = user * DAY
        events.append((start, user, int(rng.choice(ones)), 0))
        events += [(start + n * DAY, user, int(rng.choice(zeros)), 0) for n in range(1, 5)]
    past, table = interactions(events), torch.from_numpy(embeddings())
    config = changed(horizon_days=0.0, epochs=15, histories_per_user=5)
    shares = []
    for name, one in (("0", changed(epochs=1, learning_rate=1e-9)), ("1", config)):
        encoder = fitted(tmp_path / name, past, one)
        with torch.no_grad():
            vector = encode_users(encoder, [EMPTY_HISTORY], np.array([NOW]), table)[0]
        first = (table @ vector).argsort(descending=True)[:20].numpy()
        shares.append(in_group(1)[first].mean())
    assert shares[0] < 0.5 < 0.8 < shares[1]


def test_targets_of_weight_zero_teach_nothing(tmp_path: Path) -> None:
    seen = faithful(kind=1)
    start, none, some = (
        weights(fitted(tmp_path / str(n), seen, config))
        for n, config in enumerate(
            (
                changed(epochs=1, learning_rate=1e-12),
                changed(epochs=1, kind_weights={"view": 0.0}),
                changed(epochs=1, kind_weights={"view": 0.1}),
            )
        )
    )
    torch.testing.assert_close(none, start)
    assert not torch.allclose(some, start, atol=1e-3)


@pytest.mark.parametrize("full_softmax_items", [N_ITEMS, 1])
def test_an_item_that_is_not_on_offer_yet_is_not_a_negative(
    full_softmax_items: int, tmp_path: Path
) -> None:
    past = faithful(n_events=4)
    # With one target each and nothing else on offer, the loss has nothing to compare.
    config = changed(epochs=1, n_targets=1, full_softmax_items=full_softmax_items, n_negatives=30)
    start = weights(fitted(tmp_path / "0", past, changed(epochs=1, learning_rate=1e-12)))
    absent = weights(fitted(tmp_path / "1", past, config, available=NEVER))
    present = weights(fitted(tmp_path / "2", past, config))
    torch.testing.assert_close(absent, start)
    assert not torch.allclose(present, start, atol=1e-3)


def test_an_item_is_on_offer_from_its_time_on(tmp_path: Path) -> None:
    past, config = faithful(), changed(epochs=1, n_targets=1)
    fixed = np.full(N_ITEMS, past.timestamps_us[-1])
    before = weights(fitted(tmp_path / "0", past, config, available=fixed + 1))
    never = weights(fitted(tmp_path / "1", past, config, available=NEVER))
    half = weights(fitted(tmp_path / "2", past, config, available=fixed // 2))
    assert torch.equal(before, never)
    assert not torch.equal(half, never)


def test_the_validation_loss_matches_its_definition(tmp_path: Path) -> None:
    """The definition in loops, with user vectors as the service computes them."""
    rng = np.random.default_rng(4)
    events = [
        (int(rng.uniform(0, 40) * DAY), user, int(rng.integers(N_ITEMS)), int(rng.integers(2)))
        for user in range(N_USERS)
        for _ in range(9)
    ]
    past = interactions(events)
    available = (rng.uniform(0, 45, N_ITEMS) * DAY).astype(np.int64)
    # One batch, because each batch has its own mean.
    config = changed(
        epochs=4, kind_weights={"view": 0.25}, validation_share=0.3, n_targets=3, batch_size=1_000
    )
    encoder = fitted(tmp_path, past, config, available=available)
    state = torch.load(tmp_path / "best.ckpt", weights_only=True)["state_dict"]
    table = torch.from_numpy(embeddings())
    popularity, temperature = state["popularity.weight"][:, 0], state["log_temperature"].exp()
    cut = past.timestamps_us[int(len(past) * 0.7)]
    total = weight_sum = 0.0
    for history in past.histories():
        for place, time in enumerate(history.timestamps_us):
            began = place == 0 or time - history.timestamps_us[place - 1] >= 60 * 60 * 10**6
            if time < cut or not began:
                continue
            targets = [
                n
                for n in range(place, len(history.item_rows))
                if history.timestamps_us[n] <= time + 7 * DAY
            ]
            with torch.no_grad():
                vector = encode_users(encoder, [history], np.array([time]), table)[0]
            chosen = [targets[int(share * len(targets))] for share in (1 / 6, 3 / 6, 5 / 6)]
            rows = history.item_rows[chosen]
            offered = (available <= time) | np.isin(np.arange(N_ITEMS), rows)
            logits = table @ vector / temperature + popularity
            for row, kind in zip(rows, history.kinds[chosen], strict=True):
                surprise = logits[torch.from_numpy(offered)].logsumexp(dim=0) - logits[row]
                weight = (1.0, 0.25)[kind]
                total, weight_sum = total + weight * float(surprise), weight_sum + weight
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]
    (best,) = (one["best_model_score"] for key, one in saved.items() if "'validation" in key)
    assert float(best) == pytest.approx(total / weight_sum, rel=1e-4)


def test_no_training_target_lies_in_the_validation_part(tmp_path: Path) -> None:
    past = faithful()
    cut = past.timestamps_us[int(len(past) * 0.9)]
    later = past.timestamps_us >= cut
    # Each item keeps its number of events, and thus its popularity.
    moved = past.item_rows.copy()
    moved[later] = np.roll(moved[later], 1)
    other = Interactions(**{**vars(past), "item_rows": moved})
    assert not np.array_equal(moved, past.item_rows)
    one, two = (
        weights(fitted(tmp_path / str(n), each, changed(epochs=1)))
        for n, each in enumerate((past, other))
    )
    torch.testing.assert_close(one, two)
    everything = weights(fitted(tmp_path / "2", other, changed(epochs=1, validation_share=0.01)))
    assert not torch.allclose(one, everything, atol=1e-3)


def test_training_depends_on_its_seed_and_leaves_the_global_generator_alone(
    tmp_path: Path,
) -> None:
    before = torch.get_rng_state()
    one, same, other = (
        weights(fitted(tmp_path / str(n), faithful(), changed(epochs=1), seed=seed))
        for n, seed in enumerate((0, 0, 1))
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("limit", "n_steps"), [(1, 1), (40, 5), (10**6, None)])
def test_an_epoch_has_no_more_histories_than_its_limit(
    limit: int, n_steps: int | None, tmp_path: Path
) -> None:
    config = changed(epochs=2, batch_size=8, patience=None)
    fitted(tmp_path, faithful(), config.model_copy(update={"histories_per_epoch": limit}))
    steps = torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"]
    if n_steps is None:
        fitted(tmp_path / "all", faithful(), config)
        n_steps = torch.load(tmp_path / "all" / "last.ckpt", weights_only=True)["global_step"] // 2
    assert steps == 2 * n_steps


def test_an_encoder_goes_on_from_that_of_earlier_events(tmp_path: Path) -> None:
    """With a tiny learning rate it stays where it started, and what it started from as it was."""
    start = fitted(tmp_path / "a", faithful())
    before = weights(start)
    still = changed(learning_rate=1e-9, weight_decay=0.0)
    run = run_in(tmp_path / "b")
    found = train_users(faithful(), embeddings(), ALWAYS, still, run, start=start)
    torch.testing.assert_close(weights(found), before, atol=1e-6, rtol=0)
    assert torch.equal(weights(start), before)
    assert group_share(found) == pytest.approx(group_share(start), abs=1e-3)
    assert not torch.allclose(weights(fitted(tmp_path / "c", faithful(), still)), before, atol=1e-3)


def test_an_encoder_is_fitted_to_the_scale_of_the_catalogue(tmp_path: Path) -> None:
    encoder = fitted(tmp_path, faithful(), changed(epochs=1))
    torch.testing.assert_close(encoder.taste.mean, torch.from_numpy(embeddings().mean(axis=0)))


def test_automatic_precision_is_chosen_for_the_device(tmp_path: Path) -> None:
    chosen = str(resolve_precision("auto", torch.device("cpu")))
    one, other = (
        weights(fitted(tmp_path / name, faithful(), changed(epochs=1, precision=name)))
        for name in ("auto", chosen)
    )
    assert torch.equal(one, other)


def test_events_all_at_one_time_are_an_error(tmp_path: Path) -> None:
    past = interactions([(DAY, user, user % N_ITEMS, 0) for user in range(5)])
    with pytest.raises(TrainingError, match=r"visits at two times or more.*got events at 1 times"):
        fitted(tmp_path, past)


def test_no_events_at_all_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="got events at 0 times"):
        fitted(tmp_path, faithful().before(0))


@pytest.mark.parametrize("name", ["embeddings", "available_from_us"])
def test_arrays_of_another_catalogue_are_an_error(name: str, tmp_path: Path) -> None:
    table, available = embeddings(), ALWAYS
    if name == "embeddings":
        table = table[1:]
    else:
        available = available[1:]
    with pytest.raises(ValueError, match=f"item {name} must have one row for each of the 40 .*39"):
        train_users(faithful(), table, available, CONFIG, run_in(tmp_path))
