"""What a recommender refuses, by name."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from recsys.answers import MAX_K
from recsys.bundle import Bundle
from recsys.errors import InvalidArgumentError, InvalidImageError, UnknownItemError
from recsys.recommender import Recommender

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def recommender(tiny_bundle: Path) -> Recommender:
    return Recommender(Bundle(tiny_bundle))


@pytest.mark.parametrize("k", [0, -1, MAX_K + 1])
def test_k_out_of_range_is_refused_everywhere(recommender: Recommender, k: int) -> None:
    message = rf"k must be a whole number between 1 and {MAX_K}, got {k}"
    with pytest.raises(ValueError, match=message):
        recommender.recommend("nobody", k=k)
    with pytest.raises(ValueError, match=message):
        recommender.recommend_many(["nobody"], k=k)
    with pytest.raises(ValueError, match=message):
        recommender.similar(recommender.catalogue.item_ids[0], k=k)
    with pytest.raises(ValueError, match=message):
        recommender.search("lamp", k=k)


def test_unknown_items_are_named(recommender: Recommender) -> None:
    with pytest.raises(UnknownItemError, match=r"got unknown \['nothing'\]"):
        recommender.similar("nothing", k=1)
    with pytest.raises(UnknownItemError, match=r"got unknown \['nothing'\]"):
        recommender.rank("nobody", ["nothing"], now=NOW)


@pytest.mark.parametrize(("text", "image"), [(None, None), ("", b""), ("   ", None)])
def test_an_empty_query_is_refused(recommender: Recommender, text: str, image: bytes) -> None:
    with pytest.raises(ValueError, match="must have text or image bytes, got neither"):
        recommender.search(text, image, k=1)


def test_a_query_that_is_too_long_is_refused(recommender: Recommender) -> None:
    with pytest.raises(ValueError, match="at most 1000 characters, got 1001"):
        recommender.search("x" * 1001, k=1)


def test_bytes_that_are_no_picture_are_refused(recommender: Recommender) -> None:
    with pytest.raises(InvalidImageError):
        recommender.search(image=b"not a picture", k=1)


def test_a_query_that_is_no_text_is_refused(recommender: Recommender) -> None:
    query: Any = 5
    with pytest.raises(InvalidArgumentError, match="query text must be text or None, got 5"):
        recommender.search(query)


def test_no_candidates_are_refused(recommender: Recommender) -> None:
    with pytest.raises(ValueError, match="at least one candidate"):
        recommender.rank("nobody", [], now=NOW)


def test_one_text_is_not_taken_for_ids_of_one_letter(recommender: Recommender) -> None:
    calls: dict[str, Callable[[], object]] = {
        "exclude": lambda: recommender.recommend("nobody", exclude="item"),
        "item_ids": lambda: recommender.rank("nobody", "item"),
        "users": lambda: recommender.scores("nobody"),
    }
    for name, call in calls.items():
        with pytest.raises(InvalidArgumentError, match=f"{name} must be a list.* got the text"):
            call()
    n_items = len(recommender.catalogue)
    with pytest.raises(InvalidArgumentError, match="item_ids must be a list of ids, got the text"):
        recommender.delete_items(recommender.catalogue.item_ids[0])
    assert sum(one in recommender.catalogue for one in recommender.catalogue.item_ids) == n_items


@pytest.mark.parametrize("user", ["", "  "])
def test_an_empty_user_id_is_refused(recommender: Recommender, user: str) -> None:
    with pytest.raises(InvalidArgumentError, match="a user id must not be empty"):
        recommender.recommend(user)


def test_a_device_that_this_machine_lacks_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"device must be auto, cpu .* got 'nonsense'"):
        Recommender.load(tiny_bundle, device="nonsense")


def test_an_empty_picture_file_is_not_taken_for_no_picture(
    recommender: Recommender, tmp_path: Path
) -> None:
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(InvalidImageError, match="must not be an empty file, got 0 bytes"):
        recommender.search("lamp", tmp_path / "empty.jpg")
