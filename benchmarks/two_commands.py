"""Measure the time and the memory of the README's two commands.

Run from the repository's root, after the install: ``python -m benchmarks.two_commands``.
"""

import argparse
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import psutil

from benchmarks.record import record

_POLL_S = 1.0  # more often, looking at the memory would take a core from what is measured


class Cost(NamedTuple):
    """Wall time and peak memory of a command."""

    seconds: float
    peak_gb: float


def measure(command: Sequence[str], *, poll_s: float = _POLL_S) -> Cost:
    """Return the wall time of a command, and the peak memory of it and all its children.

    Memory is sampled as proportional set size, which counts a page that processes share once.

    Args:
        command: Program and arguments.
        poll_s: Seconds between two samples of the memory.

    Raises:
        subprocess.CalledProcessError: If the command fails.
    """
    start = time.perf_counter()
    peak = 0
    with subprocess.Popen(command) as process:
        while True:
            peak = max(peak, _memory_bytes(process.pid))
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=poll_s)
                break
        seconds = time.perf_counter() - start
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(command))
    return Cost(seconds, peak / 1e9)


def _memory_bytes(pid: int) -> int:
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            total += process.memory_full_info().pss
    except psutil.NoSuchProcess:
        return total  # a process ended meanwhile; the next sample sees the others
    return total


def main() -> None:
    """Measure both commands or one of them, and record their time and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["demo", "test"], help="the one command to measure")
    only = parser.parse_args().only
    topics = {"demo": "demo", "test": "tests"}
    # Nothing is recorded before both have run: a new figure makes the README's tables out of date,
    # and `make test` would fail.
    costs = {name: measure(["make", name]) for name in topics if only in (None, name)}
    for name, cost in costs.items():
        topic = topics[name]
        again = f"python -m benchmarks.two_commands --only {name}"
        record(topic, f"{topic}.seconds", round(cost.seconds, 1), "s", again)
        record(topic, f"{topic}.peak_gb", round(cost.peak_gb, 2), "GB", again)
        print(f"make {name}: {cost.seconds:.0f} s, {cost.peak_gb:.1f} GB at peak")


if __name__ == "__main__":
    main()
