"""Send random requests to the running service, and replay its log with the recommender offline.

Run from the repository's root: ``python -m benchmarks.parity``. It trains three shops of
``benchmarks.sized_shops`` first; the smallest is ranked whole, the others by the offers of sources.

Each shop gets 1,000 requests over a socket: users with and without a history, moments before and
after the last event, and 20 settings of k, filters and exclusions. Some users record events in
between. The log of requests and answers is then replayed: request by request, and, where no event
was recorded, also all users of a setting at once with ``recommend_many``. It fails if a list
differs, or a score by more than 1e-5.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.record import record
from benchmarks.sized_shops import SHOPS, bundle_of
from recsys import Bundle, Event, Filters, Recommender
from recsys.data.timestamps import from_us
from serving.client import AsyncClient
from serving.testing import running_service

COMMAND = "python -m benchmarks.parity"
N_SETTINGS, N_USERS = 20, 50  # of them, and users that ask with each: 1,000 requests
LIVE_SHARE = 0.2  # of the users record events before they ask
TOLERANCE = 1e-5

Listed = list[tuple[str, float]]  # item ids and scores, best first


@dataclass(frozen=True)
class Setting:
    """What requests share that can be answered together.

    Args:
        now: Moment of the requests, ISO 8601.
        k: Number of results.
        price_max: Highest price; None is any.
        exclude: Ids of items to leave out.
        exclude_seen: Whether items of the user's own history are left out.
    """

    now: str
    k: int
    price_max: float | None
    exclude: tuple[str, ...]
    exclude_seen: bool

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of ``recommend``, which the client and the recommender share."""
        return {
            "now": datetime.fromisoformat(self.now),
            "k": self.k,
            "filters": Filters(price_max=self.price_max),
            "exclude": self.exclude,
            "exclude_seen": self.exclude_seen,
        }


@dataclass(frozen=True)
class Request:
    """One request of the log, and its answer.

    Args:
        user: User id.
        setting: Position of its setting.
        events: What the user records before asking, as item id, kind and moment.
        answer: Item ids and scores, best first.
    """

    user: str
    setting: int
    events: tuple[tuple[str, str, str], ...] = ()
    answer: tuple[tuple[str, float], ...] = ()

    def live_events(self) -> list[Event]:
        """Return the events as records."""
        return [
            Event(self.user, item, kind, datetime.fromisoformat(at))
            for item, kind, at in self.events
        ]


class Gap(NamedTuple):
    """How far two answers to the same requests are apart.

    Args:
        score: Largest difference of the scores of an item in both lists; 0 for none.
        lists_equal: Share of the lists that have the same items in the same order.
    """

    score: float
    lists_equal: float


def draw_settings(bundle: Bundle, n: int, generator: np.random.Generator) -> list[Setting]:
    """Return settings whose moments lie in the last tenth of the log or after it."""
    first, last = bundle.interactions.timestamps_us[[0, -1]]
    span = float(last - first)
    ids = bundle.items["item_id"].to_numpy()
    prices = bundle.items["price"].drop_nulls().to_numpy()
    return [
        Setting(
            now=from_us(int(last + span * generator.uniform(-0.1, 0.05))).isoformat(),
            k=int(generator.choice([1, 5, 10, 50, 200])),
            price_max=float(np.quantile(prices, 0.6)) if generator.random() < 0.4 else None,
            exclude=tuple(generator.choice(ids, 20, False)) if generator.random() < 0.3 else (),
            exclude_seen=bool(generator.random() < 0.5),
        )
        for _ in range(n)
    ]


def draw_requests(
    bundle: Bundle, settings: Sequence[Setting], n_users: int, generator: np.random.Generator
) -> list[Request]:
    """Return the requests of random users, of which one in ten is unknown, in random order."""
    ids, kinds = bundle.items["item_id"].to_list(), bundle.interactions.kind_names
    requests = []
    for position, setting in enumerate(settings):
        users = generator.choice(bundle.interactions.user_ids, n_users, False).tolist()
        users[::10] = [f"stranger {position} {user}" for user in users[::10]]
        now = datetime.fromisoformat(setting.now)
        for user in users:
            n_events = int(generator.integers(1, 4)) if generator.random() < LIVE_SHARE else 0
            events = tuple(
                (
                    str(generator.choice(ids)),
                    str(generator.choice(kinds)),
                    (now - timedelta(minutes=float(generator.uniform(1, 600)))).isoformat(),
                )
                for _ in range(n_events)
            )
            requests.append(Request(user, position, events))
    return [requests[place] for place in generator.permutation(len(requests))]


async def serve(
    bundle: Bundle, settings: Sequence[Setting], requests: Iterable[Request], log: Path
) -> None:
    """Send the requests to a service and write them with its answers, one JSON object a line."""
    with log.open("w", encoding="utf-8") as file:
        async with running_service(bundle.path) as service, AsyncClient(service.address) as client:
            for request in requests:
                if request.events:
                    await client.record_events(request.live_events())
                found = await client.recommend(
                    request.user, **settings[request.setting].arguments()
                )
                if found.degraded:
                    sys.exit(f"answers must be whole, got one degraded by {found.degraded}")
                answer = [(one.item_id, one.score) for one in found]
                file.write(json.dumps(asdict(request) | {"answer": answer}) + "\n")


def read_log(log: Path) -> Iterator[Request]:
    """Yield the requests of a log with their answers."""
    for line in log.read_text("utf-8").splitlines():
        row = json.loads(line)
        events, answer = (tuple(map(tuple, row[name])) for name in ("events", "answer"))
        yield Request(row["user"], row["setting"], events, answer)


def replay_each(
    recommender: Recommender, settings: Sequence[Setting], requests: Iterable[Request]
) -> list[Listed]:
    """Return the offline answer to each request, with the events that its user had recorded."""
    recorded: dict[str, list[Event]] = defaultdict(list)
    answers = []
    for request in requests:
        recorded[request.user] += request.live_events()
        history = recommender.history(request.user, recorded[request.user])
        found = recommender.recommend(history, **settings[request.setting].arguments())
        answers.append([(one.item_id, one.score) for one in found])
    return answers


def replay_together(
    recommender: Recommender, settings: Sequence[Setting], requests: Sequence[Request]
) -> tuple[list[Request], list[Listed]]:
    """Return the requests of users who recorded nothing, and their answers a setting at once."""
    live = {request.user for request in requests if request.events}
    asked, answers = [], []
    for position, setting in enumerate(settings):
        some = [one for one in requests if one.setting == position and one.user not in live]
        users = [one.user for one in some]
        table = recommender.recommend_many(users, **setting.arguments())
        lists: Mapping[str, Listed] = {
            str(user): list(rows.select("item_id", "score").iter_rows())
            for (user,), rows in table.group_by("user_id", maintain_order=True)
        }
        asked += some
        answers += [lists.get(user, []) for user in users]
    return asked, answers


def compare(served: Iterable[Sequence[tuple[str, float]]], offline: Iterable[Listed]) -> Gap:
    """Return how far the answers of the service and of the recommender are apart."""
    gap, equal = 0.0, []
    for live, again in zip(served, offline, strict=True):
        scores = dict(again)
        both = [(score, scores[item]) for item, score in live if item in scores]
        gap = max([gap, *(abs(one - other) for one, other in both)])
        equal.append([item for item, _ in live] == [item for item, _ in again])
    return Gap(gap, float(np.mean(equal)))


def measure_bundle(
    bundle: Bundle, n_settings: int, n_users: int, generator: np.random.Generator
) -> dict[str, Gap]:
    """Return the gaps of one shop, of single and of joint answers."""
    settings = draw_settings(bundle, n_settings, generator)
    requests = draw_requests(bundle, settings, n_users, generator)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.ndjson"
        asyncio.run(serve(bundle, settings, requests, log))
        served = list(read_log(log))
    recommender = Recommender(bundle)
    each = compare((one.answer for one in served), replay_each(recommender, settings, served))
    asked, together = replay_together(recommender, settings, served)
    return {"each": each, "together": compare((one.answer for one in asked), together)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and record, and fail if an answer is not the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="*", choices=[*SHOPS], default=[*SHOPS])
    parser.add_argument("--no-record", action="store_true", help="only print")
    options = parser.parse_args(arguments)
    gaps = []
    for n_items in options.items:
        generator = np.random.default_rng(n_items)
        gaps_of_shop = measure_bundle(bundle_of(n_items), N_SETTINGS, N_USERS, generator)
        for how, gap in gaps_of_shop.items():
            print(f"{n_items:,} items, replayed {how}: {gap}", flush=True)
            gaps.append(gap)
    score, equal = max(gap.score for gap in gaps), min(gap.lists_equal for gap in gaps)
    if not options.no_record:
        again = f"{COMMAND} --items {' '.join(map(str, options.items))}"
        record("parity", "parity.max_abs_diff", score, "logit", again)
        record("parity", "parity.lists_equal", equal, "share", again)
    if score > TOLERANCE or equal < 1:
        sys.exit(f"served and offline answers must be the same to {TOLERANCE}, got {gaps}")


if __name__ == "__main__":
    main()
