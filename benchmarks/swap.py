"""Exchange the bundle of a service under load: does a call fail, or an answer mix versions?

Run from the repository's root: ``python -m benchmarks.swap``, with ``--rounds 500`` for a long run.

The service is ``recsys serve`` in a process of its own, over two generated bundles. Callers ask for
recommendations, similar items, searches and records, and record events, each again as soon as it
has an answer; meanwhile the bundle is swapped and rolled back in turn. What each bundle answers to
each request was noted before. An answer is mixed if it is not what the bundle of its version
answered: the same items in the same order, with scores that differ by rounding at most.
"""

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.large_shop import write_bundle_of
from benchmarks.record import record
from recsys import Bundle, Event
from recsys.data.timestamps import from_us
from serving.client import AdminClient, AsyncClient

COMMAND = "python -m benchmarks.swap"
OUT = Path("out/swap")
SIZES = (1_000, 1_200)  # items of the two bundles
ROUNDS = 20
WARM_ROUNDS = 4  # after which memory is measured: by then, all that is made once is there
N_USERS, N_ITEMS, N_TOPICS, K = 12, 6, 4, 10
TOLERANCE = 1e-4

Call = Callable[[], Awaitable[Any]]
Content = list[tuple[str, float]]


class Outcome(NamedTuple):
    """Answers to reads and writes, failed calls, and answers that mix versions."""

    answers: int
    failed: int
    mixed: int


class Process(NamedTuple):
    """A service, and what its process needs of memory."""

    address: str
    number: int

    def resident_mb(self) -> float:
        """Return the resident memory in MB."""
        status = Path(f"/proc/{self.number}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        if found is None:
            sys.exit("the resident memory of a process must be in /proc, as on Linux")
        return int(found[1]) / 1e3


def bundles() -> tuple[Bundle, Bundle]:
    """Return the two bundles of one folder; they are written if they are not there."""
    written = sorted(path.parent for path in OUT.glob("*/manifest.json"))
    if len(written) != len(SIZES):
        written = [write_bundle_of(n_items, OUT) for n_items in SIZES]
    first, second = (Bundle(path) for path in written)
    return first, second


@contextmanager
def serving(bundle: Bundle) -> Iterator[Process]:
    """Yield a service over a bundle, with an embedded Redis of its own."""
    with tempfile.TemporaryDirectory(prefix="recsys-") as state:
        command = [sys.executable, "-m", "recsys.cli", "serve", str(bundle.path)]
        command += ["--port", "0", "--state", state]
        quiet = {**os.environ, "RECSYS_LOG_LEVEL": "warning"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=quiet) as process:
            assert process.stdout is not None
            said = process.stdout.readline()
            found = re.search(r"on (\S+:\d+);", said)
            if found is None:
                sys.exit(f"the service must say its address, got {said!r}")
            try:
                yield Process(found[1], process.pid)
            finally:
                process.terminate()


def reads(client: AsyncClient, bundle: Bundle) -> list[Call]:
    """Return calls that both bundles answer, each in its own way."""
    users, items = bundle.interactions.user_ids[:N_USERS], bundle.items["item_id"][:N_ITEMS]
    now = from_us(int(bundle.interactions.timestamps_us[-1]) + 1)
    return [
        *(_recommend(client, user, now) for user in users),
        *((lambda item=item: client.similar(item, K)) for item in items),
        *((lambda n=n: client.search(f"topic {n}", k=K)) for n in range(N_TOPICS)),
        lambda: client.get_items(items.to_list()),
    ]


def _recommend(client: AsyncClient, user: str, now: datetime) -> Call:
    return lambda: client.recommend(user, K, now=now)


def content(answer: Any) -> Content:
    """Return what an answer says of each item."""
    if hasattr(answer, "items"):
        return [(one.item_id, one.price or 0.0) for one in answer.items]
    return [(one.item_id, one.score) for one in answer.results]


def is_same(one: Content, other: Content) -> bool:
    """Return whether two answers say the same."""
    return len(one) == len(other) and all(
        a[0] == b[0] and abs(a[1] - b[1]) <= TOLERANCE * max(1.0, abs(b[1]))
        for a, b in zip(one, other, strict=True)
    )


class Load:
    """Callers that ask without a pause, and check each answer.

    Args:
        calls: Reads.
        write: Write, whose answer is not checked.
        right: What each version answers to each read.
    """

    def __init__(self, calls: Sequence[Call], write: Call, right: dict[str, list[Content]]) -> None:
        self._calls, self._write, self._right = calls, write, right
        self.answers: dict[str, int] = dict.fromkeys(right, 0)
        self.failed = self.mixed = 0
        self._stopping = asyncio.Event()

    async def run(self, swap: Callable[[], Awaitable[None]]) -> Outcome:
        """Return the outcome of the calls that were made while a function ran."""
        callers = [self._ask(number) for number in range(len(self._calls))]
        await asyncio.gather(self._until_done(swap), self._record(), *callers)
        return Outcome(sum(self.answers.values()), self.failed, self.mixed)

    async def _until_done(self, swap: Callable[[], Awaitable[None]]) -> None:
        try:
            await swap()
        finally:
            self._stopping.set()

    async def _ask(self, number: int) -> None:
        while not self._stopping.is_set():
            answer = await self._try(self._calls[number])
            if answer is not None:
                right = self._right[answer.bundle_version][number]
                self.mixed += not is_same(content(answer), right)

    async def _record(self) -> None:
        while not self._stopping.is_set():
            await self._try(self._write)

    async def _try(self, call: Call) -> Any:
        try:
            answer = await call()
        except Exception as error:  # every failure counts, whatever it is
            print(f"  failed: {error!r}", flush=True)
            self.failed += 1
            return None
        self.answers[answer.bundle_version] += 1
        return answer


async def measure(process: Process, bundles: tuple[Bundle, Bundle], rounds: int) -> dict[str, Any]:
    """Return the figures of some swaps under load."""
    versions = [bundle.version for bundle in bundles]
    async with AsyncClient(process.address, timeout_s=60) as client:
        with AdminClient(process.address) as admin:
            calls, right = reads(client, bundles[0]), dict[str, list[Content]]()
            for version in reversed(versions):
                await asyncio.to_thread(admin.swap, version)
                right[version] = [content(await call()) for call in calls]
            differing = [not is_same(*pair) for pair in zip(*right.values(), strict=True)]
            memory: list[float] = []

            async def swap() -> None:
                for number in range(rounds):
                    change = admin.roll_back if number % 2 else admin.swap
                    version = [] if number % 2 else [versions[1]]
                    await asyncio.to_thread(change, *version)
                    memory.append(process.resident_mb())

            def write() -> Awaitable[Any]:
                item = bundles[0].items["item_id"][0]
                return client.record_events([Event("writer", item, "purchase")])

            load = Load(calls, write, right)
            outcome = await load.run(swap)
    half = len(memory[WARM_ROUNDS:]) // 2
    early, late = memory[WARM_ROUNDS:][:half], memory[WARM_ROUNDS:][half:]
    print(f"  {sum(differing)} of {len(calls)} reads differ between the bundles")
    print(f"  answers of each: {load.answers}")
    return {
        "rounds": rounds,
        "answers": outcome.answers,
        "failed_requests": outcome.failed,
        "mixed_versions": outcome.mixed,
        "rss_mb": statistics.median(late),
        "rss_mb_growth": statistics.median(late) - statistics.median(early),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and record; fail if a call failed or an answer was mixed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="swaps and roll-backs")
    parser.add_argument("--no-record", action="store_true", help="only print")
    options = parser.parse_args(arguments)
    if options.rounds < WARM_ROUNDS + 4:
        parser.error(f"--rounds must be at least {WARM_ROUNDS + 4}, got {options.rounds}")
    both = bundles()
    with serving(both[0]) as process:
        figures = asyncio.run(measure(process, both, options.rounds))
    for name, value in figures.items():
        print(f"  {name:16} {value:,.0f}")
        if not options.no_record:
            unit = "MB" if "mb" in name else "calls" if name != "rounds" else "swaps"
            record(
                "swap",
                f"swap.{name}",
                round(value, 1),
                unit,
                f"{COMMAND} --rounds {options.rounds}",
            )
    if figures["failed_requests"] or figures["mixed_versions"]:
        sys.exit("no call may fail, and no answer may mix versions")


if __name__ == "__main__":
    main()
