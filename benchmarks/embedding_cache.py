"""Time batches of embeddings from the device table, beside reading the same rows from Redis.

Run from the repository's root: ``python -m benchmarks.embedding_cache``, on one thread; with
``--device cuda`` the rows lie on a card.

A batch is 500 rows of 64 values. Redis answers one MGET on a socket of this machine, and its rows
are decoded and checked. Where some rows are not in the table, they are read from Redis in one round
trip and put into the table, which then has to give up others. ``zipf`` is 2,000 keys a batch, drawn
from 630,000 rows of 16 values by Zipf's law with exponent 1.2. Times are of the whole call, keys
hashed before; a batch is timed 500 times, and the median counts where nothing else is said.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.record import record
from recsys.data.arrays import Doubles, Floats
from serving.engine.cached_rows import SharedRows, decode_row, encode_row
from serving.engine.device_table import DeviceTable, Keys, hash_keys
from serving.state.connection import RedisConnection
from serving.state.embedded_redis import EmbeddedRedis

COMMAND = "python -m benchmarks.embedding_cache"
BATCH, DIM, REPEATS = 500, 64, 500
ZIPF_BATCH, ZIPF_ROWS, ZIPF_DIM, EXPONENT = 2_000, 630_000, 16, 1.2
HIT_RATES = (100, 90, 50)
SPARE = 1.3  # room for more rows than there are, as sets fill unevenly
_AT_ONCE = 50_000


class Redis(NamedTuple):
    """Rows in Redis: how they are read alone, and through the tier of the service."""

    connection: RedisConnection
    rows: SharedRows

    async def mget(self, names: list[str]) -> list[Floats]:
        """Return the rows of some names by one MGET, checked."""
        found = await self.connection.client.mget(["rows:" + name for name in names])
        return [decode_row(row, dim=DIM) for row in found]


def filled(rows: int, dim: int, device: str) -> tuple[DeviceTable, Keys]:
    """Return a table with room for random rows and somewhat more, and their keys."""
    table = DeviceTable(max_bytes=int(SPARE * rows * dim * 4), dim=dim, device=device)
    keys = hash_keys([f"item-{n}" for n in range(rows)])
    values = torch.randn(rows, dim, generator=torch.Generator().manual_seed(0))
    for start in range(0, rows, _AT_ONCE):
        table.put(keys[start : start + _AT_ONCE], values[start : start + _AT_ONCE].to(device))
    return table, keys


def zipf_ms(device: str, generator: np.random.Generator) -> Doubles:
    """Return the milliseconds of each of ``REPEATS`` batches of keys that follow Zipf's law."""
    table, keys = filled(ZIPF_ROWS, ZIPF_DIM, device)
    weights = np.arange(1, ZIPF_ROWS + 1) ** -EXPONENT
    times = []
    for _ in range(REPEATS):
        drawn = generator.choice(ZIPF_ROWS, ZIPF_BATCH, p=weights / weights.sum())
        batch = keys[drawn]
        start = time.perf_counter()
        table.get(batch)
        _wait(device)
        times.append(1000 * (time.perf_counter() - start))
    return np.array(times)


async def measure(redis: Redis, device: str, generator: np.random.Generator) -> dict[str, float]:
    """Return the microseconds of a batch by each way, and of each share of hits."""
    table, keys = filled(10 * BATCH, DIM, device)
    names = [f"item-{n}" for n in range(BATCH)]

    async def from_table() -> None:
        table.get(keys[:BATCH])
        _wait(device)

    async def from_mget() -> None:
        await redis.mget(names)

    async def from_tier() -> None:
        await asyncio.gather(*(redis.rows.get(name) for name in names))

    found = {
        "table": await median_us(from_table),
        "mget": await median_us(from_mget),
        "redis_tier": await median_us(from_tier),
    }
    for share in HIT_RATES:
        found[f"hits_{share}"] = await median_us(_mixed(redis, table, keys, share, generator))
    return found


def _mixed(
    redis: Redis, table: DeviceTable, keys: Keys, share: int, generator: np.random.Generator
) -> Callable[[], Awaitable[None]]:
    """Return a call that gets a batch of which only a share of the rows is in the table."""
    n_hits = BATCH * share // 100

    async def call() -> None:
        batch = keys[:BATCH].copy()
        # New keys for the others, so that they miss; Redis has their rows under other names.
        batch[n_hits:] = generator.integers(0, 2**63, (BATCH - n_hits, 2)).astype(np.uint64)
        found = table.get(batch)
        missing = np.flatnonzero(~found.there)
        if len(missing):
            rows = await redis.mget([f"item-{n}" for n in missing])
            table.put(batch[missing], torch.from_numpy(np.stack(rows)))
        _wait(table.device)

    return call


async def median_us(call: Callable[[], Awaitable[None]]) -> float:
    """Return the median time of a call in microseconds."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        await call()
        times.append(1e6 * (time.perf_counter() - start))
    return float(np.median(times))


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


async def _with_redis(folder: Path, device: str, generator: np.random.Generator) -> None:
    server = EmbeddedRedis(folder)
    server.start()
    connection = RedisConnection(server.url, timeout_s=10)
    try:
        rows = SharedRows(
            connection,
            prefix="rows:",
            dim=DIM,
            ttl_s=3600,
            on_bad_row=_fail,
            on_refused=_fail,
            max_queue=BATCH,
        )
        values = generator.normal(size=(BATCH, DIM)).astype(np.float32)
        stored = {f"rows:item-{n}": encode_row(row) for n, row in enumerate(values)}
        before = (await connection.client.info("memory"))["used_memory"]
        await connection.client.mset(stored)
        after = (await connection.client.info("memory"))["used_memory"]
        times = await measure(Redis(connection, rows), device, generator)
        await rows.close()
    finally:
        await connection.close()
        server.stop()
    for name, value in times.items():
        show(f"cache.{name}_us", value, "us", device)
    show("cache.ratio_to_mget", times["mget"] / times["table"], "ratio", device)
    show("cache.redis_bytes_per_row", (after - before) / BATCH, "B", device)


def _fail() -> None:
    raise RuntimeError("Redis must have every row, and take every command")


def show(name: str, value: float, unit: str, device: str) -> None:
    """Print and record a figure; that of a card has a name of its own."""
    name = f"serving.{'gpu.' if device != 'cpu' else ''}{name}"
    print(f"{name}: {value:.4g} {unit}", flush=True)
    command = COMMAND if device == "cpu" else f"{COMMAND} --device {device}"
    record("serving", name, round(value, 4), unit, command)


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="torch device of the table")
    device = parser.parse_args().device
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_with_redis(Path(folder), device, generator))
    times = zipf_ms(device, generator)
    show("cache.zipf.mean_ms", float(times.mean()), "ms", device)
    show("cache.zipf.p99_ms", float(np.quantile(times, 0.99)), "ms", device)


if __name__ == "__main__":
    main()
