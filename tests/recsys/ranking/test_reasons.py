"""Reasons name the item that counts most, by definitions written as loops."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
import torch

from recsys.answers import Reason
from recsys.catalogue.store import Catalogue
from recsys.data.interactions import EMPTY_HISTORY, History
from recsys.data.timestamps import from_us
from recsys.models.user_encoder import UserEncoder, UserEncoderSpec
from recsys.ranking.candidates import SOURCES, CandidateSource, source_scores
from recsys.ranking.catalogue_ranker import CatalogueRanker
from recsys.ranking.item_table import ItemTable, Neighbours, build_item_table
from recsys.ranking.profiles import HALF_LIVES, UserProfiles
from recsys.ranking.rankers import SimpleRanker
from recsys.ranking.reasons import ReasonWriter, source_parts
from recsys.ranking.relations import related_items
from recsys.ranking.scoring import UserRanker, encode_users
from recsys.ranking.statistics import PERIODS, build_statistics
from recsys.schema import ItemSchema
from tests.recsys.ranking.planted_tables import DAY, NOW, PURCHASE, VIEW, history, profiles_of
from tests.recsys.ranking.test_catalogue_ranker import DIM, KINDS, NAMES, USERS, N, log, vectors

WINDOW_DAYS = 28.0


def shop_items() -> pl.DataFrame:
    """Items with titles and categories, of which the last third were created lately."""
    ages = [None if row % 3 == 0 else timedelta(days=10.0 * (N - row)) for row in range(N)]
    table = pl.DataFrame(
        {
            "item_id": NAMES,
            "title": [None if row == 4 else f"Thing {row}" for row in range(N)],
            "category": [["Home", f"Shelf {row % 4}"] if row % 5 else [] for row in range(N)],
            "attributes": [[]] * N,
            "created_at": [None if age is None else from_us(NOW) - age for age in ages],
        }
    ).with_columns(price=1.0, available=True)
    return ItemSchema.cast(pl.concat([ItemSchema.create_empty(), table], how="diagonal_relaxed"))


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue(shop_items(), vectors(N))


@pytest.fixture
def encoder() -> UserEncoder:
    torch.manual_seed(0)
    made = UserEncoder(DIM, n_kinds=2, spec=UserEncoderSpec(8, 2, 0, history_length=3)).eval()
    made.taste.fit_scale(torch.from_numpy(vectors(N)))
    return made


@pytest.fixture
def table(catalogue: Catalogue) -> ItemTable:
    statistics = build_statistics(
        log(), NOW, target_kinds=["purchase"], window_days=WINDOW_DAYS, ridge=5.0
    )
    return build_item_table(catalogue, statistics, torch.tensor([True, False]))


@pytest.fixture
def related(table: ItemTable) -> ItemTable:
    """The table of a shop in which some items of a long history are related to others."""
    relations = [
        ("goes_with", 8, 5, 1.0),
        ("goes_with", 13, 5, 0.25),
        ("part_of", 9, 20, 3.0),
        ("part_of", 5, 13, 1.5),
        ("replaces", 0, 8, 2.0),
        ("goes_with", 0, 8, 1.0),
    ]
    names = [(NAMES[left], NAMES[right], kind, weight) for kind, left, right, weight in relations]
    rows = pl.DataFrame(names, ["left", "right", "kind", "weight"], orient="row")
    statistics = build_statistics(
        log(), NOW, target_kinds=["purchase"], related=related_items(rows, NAMES)
    )
    made = build_item_table(Catalogue(shop_items(), vectors(N)), statistics, torch.tensor([1, 0]))
    return replace(table, related=made.related)


LONG = history(
    *((row, VIEW if row % 2 else PURCHASE, 40.0 - row) for row in (3, 8, 1, 11, 8, 20, 6)),
    (2, VIEW, 0.02),
    (13, PURCHASE, 0.01),
)


def profile(met: History, table: ItemTable, encoder: UserEncoder) -> UserProfiles:
    moments = np.array([NOW], dtype=np.int64)
    with torch.inference_mode():
        found = encode_users(encoder, [met], moments, table.embeddings)
        return profiles_of([met], table, vectors=found)


def parts_by_definition(
    source: str, met: History, table: ItemTable, row: int
) -> dict[int, float] | None:
    """Return what each own item adds to a source's score of a row; None for taste and others."""
    latest_us = int(met.timestamps_us[-1])
    half_life = HALF_LIVES["middle"] * table.tempo.pause_days

    def weight(neighbours: Neighbours, own: int) -> float:
        pairs = zip(neighbours.rows[own].tolist(), neighbours.weights[own].tolist(), strict=True)
        return sum(strength for other, strength in pairs if other == row)

    found = {}
    for own in set(met.item_rows.tolist()):
        lag_us = latest_us - int(met.timestamps_us[met.item_rows == own].max())
        if source == "together":
            found[own] = weight(table.ease, own) + 1e-6 * weight(table.cosine, own)
        elif source == "together_recent":
            found[own] = weight(table.cosine, own) * 2 ** (-lag_us / DAY / half_life)
        elif source == "next_visit":
            found[own] = weight(table.following, own) if lag_us < DAY / 24 else 0.0
        else:
            return None
    return found


@pytest.mark.parametrize("source", ["next_visit", "together", "together_recent"])
@pytest.mark.parametrize("met", [USERS[0], USERS[2], LONG])
def test_parts_are_those_of_the_definition(
    table: ItemTable, encoder: UserEncoder, met: History, source: str
) -> None:
    profiles = profile(met, table, encoder)
    rows = torch.tensor([5, 0, 17, 9, 2])
    parts = source_parts(source, profiles, rows, table, encoder)
    assert parts is not None
    for column, row in enumerate(rows.tolist()):
        wanted = parts_by_definition(source, met, table, row)
        assert wanted is not None
        assert profiles.own.rows.tolist() == sorted(wanted)
        expected = [wanted[own] for own in sorted(wanted)]
        np.testing.assert_allclose(parts[:, column], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "source", ["next_visit", "together", "together_recent", "similar_users", "taste"]
)
@pytest.mark.parametrize("met", [USERS[0], LONG])
def test_the_parts_of_an_item_add_up_to_its_score(
    table: ItemTable, encoder: UserEncoder, met: History, source: str
) -> None:
    profiles = profile(met, table, encoder)
    rows = torch.randperm(N)[:12]
    parts = source_parts(source, profiles, rows, table, encoder)
    assert parts is not None
    total, scores = parts.sum(dim=0), source_scores(profiles, table)[source][0, rows]
    if source == "taste":  # the user's vector has unit length
        total = total * (scores.norm() / total.norm())
    np.testing.assert_allclose(total, scores, rtol=1e-3, atol=1e-5)


def test_the_parts_of_related_items_add_up_and_the_strongest_relation_is_named(
    catalogue: Catalogue, encoder: UserEncoder, related: ItemTable
) -> None:
    profiles = profile(LONG, related, encoder)
    rows = torch.tensor([5, 9, 0, 7])
    parts = source_parts("related", profiles, rows, related, encoder)
    assert parts is not None
    scores = source_scores(profiles, related)["related"]
    torch.testing.assert_close(parts.sum(dim=0), scores[0, rows])
    assert scores[0].nonzero()[:, 0].tolist() == [0, 5, 9]
    for row, own, text in (
        (5, 13, "Belongs with Thing 13"),
        (9, 20, "Belongs with Thing 20"),
        (0, 8, "Replaces Thing 8"),
    ):
        found = write(catalogue, encoder, related, "related", row)
        assert found == Reason("related", NAMES[own], text)
    met = history((8, PURCHASE, 2.0), (3, PURCHASE, 1.0))
    assert write(catalogue, encoder, related, "related", 5, met=met).text == "Goes with Thing 8"


def test_without_relations_nothing_is_related(table: ItemTable, encoder: UserEncoder) -> None:
    profiles = profile(LONG, table, encoder)
    assert not source_scores(profiles, table)["related"].any()
    parts = source_parts("related", profiles, torch.tensor([0, 7]), table, encoder)
    assert parts is not None
    assert parts.tolist() == [[0.0, 0.0]] * len(profiles.own.rows)


def test_taste_rests_only_on_the_events_that_the_encoder_reads(
    table: ItemTable, encoder: UserEncoder
) -> None:
    profiles = profile(LONG, table, encoder)
    parts = source_parts("taste", profiles, torch.tensor([0, 7]), table, encoder)
    assert parts is not None
    read = profiles.own.rows[(parts != 0).any(dim=1)].tolist()
    assert read == sorted(LONG.item_rows[-3:].tolist())


@pytest.mark.parametrize("met", [USERS[0], USERS[2], LONG, EMPTY_HISTORY])
@pytest.mark.parametrize("rank_all_up_to", [5, 99])
def test_a_reason_is_of_the_source_and_names_the_item_that_adds_most(
    catalogue: Catalogue, table: ItemTable, encoder: UserEncoder, met: History, rank_all_up_to: int
) -> None:
    statistics = build_statistics(
        log(), NOW, target_kinds=["purchase"], window_days=WINDOW_DAYS, ridge=5.0
    )
    ranker = CatalogueRanker(
        catalogue,
        UserRanker(encoder, SimpleRanker("item-kNN")),
        CandidateSource(rank_all_up_to=rank_all_up_to, offers=dict.fromkeys(SOURCES, 9)),
        statistics,
        KINDS,
    )
    best = ranker.best([met], N, now_us=NOW, mask=np.ones(N, dtype=np.bool_), exclude_seen=False)
    results = ranker.results(best, explain=True)
    assert len(results) == N
    profiles = profile(met, table, encoder)
    for result in results:
        reason, row = result.reason, catalogue.row_of[result.item_id]
        assert reason is not None
        assert reason.kind == result.source
        if result.source == "own_history":
            assert reason.item_id == result.item_id
            continue
        parts = source_parts(result.source, profiles, torch.tensor([row]), table, encoder)
        assert (parts is None) == (reason.item_id is None) == (reason.kind in ("popular", "new"))
        if parts is not None and reason.item_id is not None:
            named = profiles.own.rows.tolist().index(catalogue.row_of[reason.item_id])
            assert float(parts[named, 0]) == float(parts.max()) > 0
            title = catalogue.at([catalogue.row_of[reason.item_id]])["title"][0]
            assert (title or reason.item_id) in reason.text
    assert all(one.reason is None for one in ranker.results(best, explain=False))


def write(
    catalogue: Catalogue,
    encoder: UserEncoder,
    table: ItemTable,
    source: str,
    row: int,
    *,
    met: History = LONG,
    kinds: tuple[str, ...] = ("purchase", "view"),
    as_of_us: int = NOW,
) -> Reason:
    writer = ReasonWriter(catalogue, encoder, kinds, as_of_us)
    return writer.write(profile(met, table, encoder), torch.tensor([row]), [source], table)[0]


def test_sentences_say_what_the_user_did(
    catalogue: Catalogue, encoder: UserEncoder, table: ItemTable
) -> None:
    mixed = history((4, VIEW, 3.0), (4, PURCHASE, 2.0), (4, VIEW, 1.0))
    viewed = history((9, VIEW, 1.0))
    for met, row, kinds, text in (
        (mixed, 4, ("purchase", "view"), "Because you bought it before"),
        (viewed, 9, ("purchase", "view"), "Because you viewed it before"),
        (viewed, 9, ("purchase", "cart"), "Because you put it in your cart before"),
        (viewed, 9, ("purchase", "rating"), "Because you chose it before"),
    ):
        found = write(catalogue, encoder, table, "own_history", row, met=met, kinds=kinds)
        assert found == Reason("own_history", NAMES[row], text)
    assert write(catalogue, encoder, table, "taste", 9, met=mixed).text == (
        "Because you bought item-04"
    )
    assert write(catalogue, encoder, table, "taste", 9, met=viewed).text == (
        "Because you viewed Thing 9"
    )


@pytest.mark.parametrize(
    ("kinds", "texts"),
    [
        (
            ("purchase",),
            {
                "next_visit": "People who bought Thing 9 came back for this",
                "together": "Often bought with Thing 9",
                "together_recent": "Often bought with Thing 9",
                "similar_users": "People who bought Thing 9, as you did, also bought this",
            },
        ),
        (
            ("purchase", "view"),
            {
                "next_visit": "People who chose Thing 9 came back for this",
                "together": "Often chosen with Thing 9",
                "together_recent": "Often chosen with Thing 9",
                "similar_users": "People who chose Thing 9, as you did, also chose this",
            },
        ),
    ],
)
def test_what_others_did_is_called_buying_only_if_all_events_are_purchases(
    catalogue: Catalogue,
    encoder: UserEncoder,
    table: ItemTable,
    kinds: tuple[str, ...],
    texts: dict[str, str],
) -> None:
    met = history((9, PURCHASE, 1.0))
    for source, text in texts.items():
        found = write(catalogue, encoder, table, source, 0, met=met, kinds=kinds)
        assert found == Reason(source, NAMES[9], text)


def test_popularity_names_its_real_period(
    catalogue: Catalogue, encoder: UserEncoder, table: ItemTable
) -> None:
    lately = int(table.users[:, -1].argmax())
    days = PERIODS[-1] * WINDOW_DAYS
    assert write(catalogue, encoder, table, "popular", lately).text == "Popular in the last 7 days"
    old = NOW - round((days + 1) * DAY)
    assert write(catalogue, encoder, table, "popular", lately, as_of_us=old).text == (
        f"Popular in the 7 days to {from_us(old):%Y-%m-%d}"
    )
    never = int(table.users[:, -1].argmin())
    assert write(catalogue, encoder, table, "popular", never).text == "Popular"


def test_an_item_is_new_for_one_window_in_its_category(
    catalogue: Catalogue, encoder: UserEncoder, table: ItemTable
) -> None:
    for row, text in (
        (29, "New in Shelf 1"),
        (28, "New in Shelf 0"),
        (25, f"Here since {from_us(NOW - 50 * DAY):%Y-%m-%d}"),
        (0, "New"),
    ):
        found = write(catalogue, encoder, table, "new", row)
        assert found == Reason("new", None, text)


def test_an_item_that_was_deleted_can_still_be_a_reason(
    catalogue: Catalogue, encoder: UserEncoder, table: ItemTable
) -> None:
    catalogue.delete([NAMES[9]])
    found = write(catalogue, encoder, table, "taste", 3, met=history((9, PURCHASE, 1.0)))
    assert found == Reason("taste", NAMES[9], "Because you bought Thing 9")
