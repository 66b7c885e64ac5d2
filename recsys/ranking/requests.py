"""Requests for recommendations, and their answers in as few passes of the ranker as possible."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import numpy as np

from recsys.answers import Result, check_k, list_ids
from recsys.catalogue.filters import Filters
from recsys.catalogue.store import Catalogue
from recsys.data.interactions import History
from recsys.data.timestamps import to_us
from recsys.ranking.catalogue_ranker import CatalogueRanker
from recsys.ranking.histories import UserHistories
from recsys.rules import Rules


@dataclass(frozen=True)
class Request:
    """What one call of ``Recommender.recommend`` asks for; the fields are its arguments."""

    user: str | History
    k: int = 10
    now: datetime | None = None
    filters: Filters = Filters()
    exclude: Collection[str] = ()
    exclude_seen: bool = False
    explain: bool = False
    rules: Rules | None = None


class Found(NamedTuple):
    """The results of a request, and the reasons why they are less than they could be."""

    results: list[Result]
    degraded: tuple[str, ...]


def answer_each(
    requests: Sequence[Request],
    ranker: CatalogueRanker,
    catalogue: Catalogue,
    histories: UserHistories,
) -> list[Found]:
    """Return what was found for each request, in their order.

    Requests that share ``k``, ``exclude_seen`` and ``rules`` are ranked together, whatever their
    filters, exclusions and moments; those without a moment are ranked apart, by the live counts.
    Who is ranked together changes no list; on a processor it changes no score by more than 1e-5.

    Args:
        requests: Requests of any users.
        ranker: What ranks the catalogue.
        catalogue: Items to recommend.
        histories: Histories of users who are named by their id.

    Raises:
        InvalidArgumentError: As ``Recommender.recommend``, for any of the requests.
        UnknownItemError: Likewise.
    """
    found: dict[int, Found] = {}
    for places in _alike(requests):
        together = [requests[place] for place in places]
        found |= zip(places, _answer(together, ranker, catalogue, histories), strict=True)
    return [found[place] for place in range(len(requests))]


def _alike(requests: Sequence[Request]) -> Iterator[list[int]]:
    """Yield the positions of requests that can be ranked together."""
    groups: list[list[int]] = []
    settings: list[tuple[int, bool, Rules | None, bool]] = []  # of each group; rules have no hash
    for place, one in enumerate(requests):
        wanted = one.k, one.exclude_seen, one.rules, one.now is None
        if wanted not in settings:
            settings.append(wanted)
            groups.append([])
        groups[settings.index(wanted)].append(place)
    yield from groups


def _answer(
    requests: Sequence[Request],
    ranker: CatalogueRanker,
    catalogue: Catalogue,
    histories: UserHistories,
) -> list[Found]:
    """Return what was found for requests that share ``k``, ``exclude_seen`` and ``rules``."""
    k, exclude_seen, rules = requests[0].k, requests[0].exclude_seen, requests[0].rules
    check_k(k)
    ranker = ranker.at(requests[0].now)
    moments = [to_us("now", one.now) for one in requests]
    masks = [
        catalogue.mask(one.filters, now_us=now_us, exclude=list_ids("exclude", one.exclude))
        for one, now_us in zip(requests, moments, strict=True)
    ]
    # Most requests of a storefront may show the same items, which are then chosen from faster.
    shared = all(np.array_equal(mask, masks[0]) for mask in masks)
    best = ranker.best(
        histories.find_each(one.user for one in requests),
        k,
        now_us=np.array(moments, dtype=np.int64),
        mask=masks[0] if shared else np.stack(masks),
        exclude_seen=exclude_seen,
        rules=rules,
        numbers=np.zeros(len(requests), dtype=np.int64),  # each is the only user of its request
    )
    if best.simple is not None and len(requests) > 1:
        # The ranker may have failed for some of them only.
        return [one for each in requests for one in _answer([each], ranker, catalogue, histories)]
    lists = ranker.results_each(best, [one.explain for one in requests])
    return [Found(results, best.degraded) for results in lists]
