"""Measure the service under load: recommendations beside the same call without work.

Run from the repository's root, after ``recsys demo``: ``python -m benchmarks.serving``. It measures
the bundle in ``out/demo``, and a generated one of 100,000 items (``benchmarks.large_shop``); a
number of items or a path measures that bundle alone.

The service runs in a process of its own, with the embedded Redis. The same process has a second
port that answers the same call with a reply that was made before: the no-op. It has the same
interceptor, and its reply has the same size, so that the ratio of both says what of the time is
ours. Users are drawn anew for each call; each has some live events, which lie in Redis.
"""

import argparse
import asyncio
import io
import multiprocessing
import os
import re
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
from PIL import Image

import recsys.ranking.scoring
from benchmarks.large_shop import bundle_of
from benchmarks.record import record
from protos.recsys.v1 import recommender_pb2 as pb
from protos.recsys.v1 import recommender_pb2_grpc as rpc
from recsys import Bundle, Event, Recommender
from recsys.bundle.finding import find_bundle
from recsys.data.timestamps import from_us
from recsys.ranking.candidates import CandidateSource
from recsys.ranking.catalogue_ranker import CatalogueRanker
from recsys.ranking.scoring import UserRanker
from serving.client import AsyncClient
from serving.keepalive import SERVER_OPTIONS
from serving.rpc.interceptor import Boundary
from serving.rpc.rates import RateLimits
from serving.rpc.servicer import RecommenderServicer
from serving.state.histories import LiveHistories
from serving.telemetry import Telemetry
from serving.testing import running_service
from serving.tokens import Tokens

COMMAND = "python -m benchmarks.serving"
DEMO, LARGE = Path("out/demo"), 100_000
K, CONCURRENCY = 20, 32
N_USERS, LIVE_EVENTS = 500, 5
SECONDS = float(os.environ.get("SERVING_SECONDS", 5))
PHOTOS_AT_ONCE = 2
UNITS = {"per_s": "calls/s", "p50_ms": "ms", "p99_ms": "ms", "ms": "ms"}

# Functions whose time is measured, by stage; some stages are inside others.
STAGES = {
    "history read": (LiveHistories, "read"),
    "history merged": (Recommender, "history"),
    "user": (UserRanker, "profiles"),
    "candidates": (CandidateSource, "choose"),
    "features": (recsys.ranking.scoring, "ranking_features"),
    "features and ranker": (UserRanker, "score"),
    "user to list": (CatalogueRanker, "best"),
    "results": (CatalogueRanker, "results"),
    "call": (RecommenderServicer, "Recommend"),
}


class Load(NamedTuple):
    """Answers a second, and percentiles of the time to an answer in milliseconds."""

    per_s: float
    p50_ms: float
    p99_ms: float

    def __str__(self) -> str:
        return f"{self.per_s:,.0f}/s, p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms"


class NoOp(rpc.RecommenderServicer):
    """Answers every recommendation with one reply."""

    def __init__(self) -> None:
        self.reply = pb.RecommendResponse()

    async def Recommend(  # noqa: N802 - the name is the protocol's
        self, request: pb.RecommendRequest, context: Any
    ) -> pb.RecommendResponse:
        """Return the reply."""
        return self.reply


class Stopwatch:
    """Adds up the wall time of the functions of ``STAGES``."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        for stage, (owner, name) in STAGES.items():
            setattr(owner, name, self._timed(stage, getattr(owner, name)))

    def _timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self._measured(stage):
                return function(*args, **kwargs)

        async def awaited(*args: Any, **kwargs: Any) -> Any:
            with self._measured(stage):
                return await function(*args, **kwargs)

        return awaited if asyncio.iscoroutinefunction(function) else timed

    @contextmanager
    def _measured(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start


async def _serve(bundle: Path, orders: Connection, stopwatch: Stopwatch) -> None:
    """Serve the bundle and the no-op, and answer orders until one is to stop."""
    async with running_service(bundle) as service:
        no_op = NoOp()  # type: ignore[abstract]
        server = grpc.aio.server(
            interceptors=[Boundary(Telemetry(), Tokens(), RateLimits(None))], options=SERVER_OPTIONS
        )
        rpc.add_RecommenderServicer_to_server(no_op, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        orders.send((service.address, f"127.0.0.1:{port}"))
        began = time.process_time()
        while order := await asyncio.to_thread(orders.recv):
            if isinstance(order, bytes):
                no_op.reply = pb.RecommendResponse.FromString(order)
            orders.send(stopwatch.seconds | {"all, processor time": time.process_time() - began})
            began = time.process_time()
            stopwatch.seconds.clear()
        await server.stop(None)


def serve(bundle: Path, orders: Connection) -> None:
    """Run the server process; an order is the no-op's reply, True for the stages, or None."""
    asyncio.run(_serve(bundle, orders, Stopwatch()))


async def at_once(call: Callable[[], Awaitable[Any]], n: int, seconds: float = SECONDS) -> Load:
    """Return the load of ``n`` callers, of whom each calls again as soon as it has an answer."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while (start := time.perf_counter()) < end:
            await call()
            times.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(n)))
    return _load(times, time.perf_counter() - start)


async def at_rate(call: Callable[[], Awaitable[Any]], per_s: float) -> Load:
    """Return the load of calls at random moments, whose times count from when they were due."""
    generator, times = np.random.default_rng(0), []
    due = np.cumsum(generator.exponential(1 / per_s, max(1, int(per_s * SECONDS))))
    start = time.perf_counter()

    async def caller(at: float) -> None:
        await asyncio.sleep(max(0.0, start + at - time.perf_counter()))
        await call()
        times.append(time.perf_counter() - start - at)

    await asyncio.gather(*(caller(at) for at in due.tolist()))
    return _load(times, time.perf_counter() - start)


def _load(times: Sequence[float], seconds: float) -> Load:
    p50, p99 = np.quantile(times, (0.5, 0.99)) * 1e3
    return Load(len(times) / seconds, float(p50), float(p99))


class Traffic:
    """The calls of one bundle, by users drawn at random.

    Args:
        bundle: The bundle that is served.
        client: Client of the service.
        no_op: Client of the no-op.
    """

    def __init__(self, bundle: Bundle, client: AsyncClient, no_op: AsyncClient) -> None:
        self._client, self._no_op = client, no_op
        self._generator = np.random.default_rng(0)
        events = bundle.interactions
        self._users = self._generator.choice(events.user_ids, N_USERS).tolist()
        self._items, self._kind = bundle.items["item_id"], events.kind_names[0]
        self._last_us = int(events.timestamps_us[-1])
        self._photo = _draw_photo(self._generator)

    async def record_events(self) -> None:
        """Record some live events of each user, after those of the bundle."""
        for user in self._users:
            items = self._generator.choice(self._items, LIVE_EVENTS).tolist()
            await self._client.record_events(
                [
                    Event(user, item, self._kind, from_us(self._last_us + 60_000_000 * number))
                    for number, item in enumerate(items, start=1)
                ]
            )

    async def recommend(self) -> None:
        """Ask for a user's recommendations."""
        await self._client.recommend(str(self._generator.choice(self._users)), K)

    async def call_no_op(self) -> None:
        """Make the same call without work."""
        await self._no_op.recommend(str(self._generator.choice(self._users)), K)

    async def identify(self) -> None:
        """Ask what a photo shows, in turns of ``PHOTOS_AT_ONCE``."""
        await self._client.identify(self._photo)


def _draw_photo(generator: np.random.Generator) -> bytes:
    """Return a JPEG of 320 x 320 coloured blots."""
    blots = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    file = io.BytesIO()
    blots.resize((320, 320)).save(file, "JPEG")
    return file.getvalue()


async def _reply(address: str, user: str) -> bytes:
    """Return a whole answer of the service as it travels."""
    async with grpc.aio.insecure_channel(address) as channel:
        request = pb.RecommendRequest(user_id=user, k=K)
        found = await rpc.RecommenderStub(channel).Recommend(request)
    if found.info.degraded or len(found.results) != K:
        sys.exit(f"answers must be whole and have {K} results, got {found}")
    return bytes(found.SerializeToString())


async def measure(bundle: Bundle, orders: Connection) -> dict[str, float]:
    """Return the figures of a bundle that a server process serves."""
    address, no_op_address = await asyncio.to_thread(orders.recv)
    figures: dict[str, float] = {}

    def note(name: str, load: Load) -> Load:
        print(f"  {name:32} {load}", flush=True)
        figures.update({f"{name}.{part}": value for part, value in load._asdict().items()})
        return load

    async with AsyncClient(address) as client, AsyncClient(no_op_address) as no_op:
        traffic = Traffic(bundle, client, no_op)
        await traffic.record_events()
        await at_once(traffic.recommend, CONCURRENCY, 1.0)  # warms up
        orders.send(await _reply(address, bundle.interactions.user_ids[0]))
        orders.recv()
        await at_once(traffic.call_no_op, CONCURRENCY, 1.0)
        note("no_op.alone", await at_once(traffic.call_no_op, 1))
        note("recommend.alone", await at_once(traffic.recommend, 1))
        before = await at_once(traffic.call_no_op, CONCURRENCY)
        orders.send(True)
        orders.recv()
        full = note("recommend.at_32", await at_once(traffic.recommend, CONCURRENCY))
        orders.send(True)
        stages = orders.recv()
        after = await at_once(traffic.call_no_op, CONCURRENCY)
        # Half before and half after, as other programs may have slowed one of them down.
        no_work = note("no_op.at_32", Load(*np.mean([before, after], axis=0)))
        figures["recommend.ratio_to_noop"] = full.per_s / no_work.per_s
        note("recommend.at_half_load", await at_rate(traffic.recommend, full.per_s / 2))
        if "identification" in bundle.parts:
            photos = asyncio.create_task(at_once(traffic.identify, PHOTOS_AT_ONCE))
            note("recommend.beside_identify", await at_rate(traffic.recommend, full.per_s / 2))
            note("identify.beside_recommend", await photos)
    n_calls = full.per_s * SECONDS
    for stage, seconds in stages.items():
        figures[f"stage.{re.sub('[^a-z]+', '_', stage)}.ms"] = ms = 1e3 * seconds / n_calls
        print(f"  {stage:32} {ms:.2f} ms a call")
    print(f"  ratio to the no-op: {figures['recommend.ratio_to_noop']:.3f}", flush=True)
    return figures


def measure_bundle(path: Path) -> dict[str, float]:
    """Return the figures of a bundle, served by a process of its own."""
    bundle = Bundle(path)
    print(f"{len(bundle.items):,} items, bundle {bundle.version}", flush=True)
    context = multiprocessing.get_context("spawn")
    orders, ordered = context.Pipe()
    process = context.Process(target=serve, args=(path, ordered))
    process.start()
    try:
        return asyncio.run(measure(bundle, orders))
    finally:
        orders.send(None)
        process.join(timeout=20)
        process.kill()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shops", nargs="*", default=[str(DEMO), str(LARGE)])
    parser.add_argument("--no-record", action="store_true", help="only print")
    options = parser.parse_args(arguments)
    for shop in options.shops:
        path = bundle_of(int(shop)) if shop.isdecimal() else find_bundle(Path(shop))
        figures = measure_bundle(path)
        if options.no_record:
            continue
        name = f"serving.items_{int(shop) // 1_000}k" if shop.isdecimal() else "serving.demo"
        for figure, value in figures.items():
            unit = UNITS.get(figure.rpartition(".")[2], "ratio")
            record("serving", f"{name}.{figure}", round(value, 4), unit, f"{COMMAND} {shop}")


if __name__ == "__main__":
    main()
