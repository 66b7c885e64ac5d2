"""A program written for the client of the service runs on the library, and the other way round."""

import inspect
from types import UnionType
from typing import Any, get_args, get_type_hints

import pytest

from recsys.identifier import ProductIdentifier
from recsys.recommender import Recommender
from serving.client import AsyncClient, Client

LIBRARY = {
    "recommend": Recommender,
    "rank": Recommender,
    "similar": Recommender,
    "search": Recommender,
    "annotate": Recommender,
    "add_items": Recommender,
    "delete_items": Recommender,
    "identify": ProductIdentifier,
}


def accepted(hint: Any) -> set[Any]:
    """Return the types that a hint accepts: the parts of a union, or the hint alone."""
    return set(get_args(hint)) if isinstance(hint, UnionType) else {hint}


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize("method", LIBRARY)
def test_names_and_defaults_are_the_same(client: type, method: str) -> None:
    of_client = inspect.signature(getattr(client, method)).parameters
    of_library = inspect.signature(getattr(LIBRARY[method], method)).parameters

    assert list(of_client) == list(of_library)
    for name, parameter in of_client.items():
        assert parameter.default == of_library[name].default, name
        assert parameter.kind == of_library[name].kind, name


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize("method", LIBRARY)
def test_results_are_of_the_same_type_and_the_library_accepts_what_the_client_does(
    client: type, method: str
) -> None:
    of_client = get_type_hints(getattr(client, method))
    of_library = get_type_hints(getattr(LIBRARY[method], method))

    assert of_client.pop("return") == of_library.pop("return")
    for name in of_client:
        if name == "pictures":  # the values of the library's mapping may be paths, too
            assert bytes in get_args(get_args(of_library[name])[0])[1].__args__
            continue
        assert accepted(of_client[name]) <= accepted(of_library[name]), name


def test_an_identifier_adds_items_as_the_recommender_does() -> None:
    one, other = (inspect.signature(owner.add_items) for owner in (Recommender, ProductIdentifier))

    assert one == other
