import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from serving.engine.cached_rows import BadRowError, SharedRows, decode_row, encode_row
from serving.errors import InternalError
from serving.state.connection import RedisConnection
from serving.state.embedded_redis import EmbeddedRedis

DIM = 8

vectors = st.sampled_from([np.float32, np.float16]).flatmap(
    lambda dtype: arrays(
        dtype,
        st.integers(0, 33),
        elements=st.floats(-1e4, 1e4, width=np.dtype(dtype).itemsize * 8),
    )
)


@given(vectors)
def test_a_row_comes_back_bit_by_bit(vector: NDArray[np.floating]) -> None:
    decoded = decode_row(encode_row(vector), dim=len(vector))

    assert decoded.dtype == np.float32
    assert decoded.tobytes() == vector.astype(np.float32).tobytes()


@given(vectors, st.data())
def test_any_flipped_bit_is_noticed(vector: NDArray[np.floating], data: st.DataObject) -> None:
    row = bytearray(encode_row(vector))
    position = data.draw(st.integers(0, len(row) * 8 - 1))
    row[position // 8] ^= 1 << position % 8

    with pytest.raises(BadRowError):
        decode_row(bytes(row), dim=len(vector))


@given(vectors, st.data())
def test_a_row_of_another_length_is_noticed(
    vector: NDArray[np.floating], data: st.DataObject
) -> None:
    row = encode_row(vector)
    cut = row[: data.draw(st.integers(0, len(row) - 1))]

    for damaged in (cut, row + b"\0"):
        with pytest.raises(BadRowError):
            decode_row(damaged, dim=len(vector))


@given(st.binary(max_size=200), st.integers(0, 50))
def test_foreign_bytes_are_never_an_embedding(junk: bytes, dim: int) -> None:
    with pytest.raises(BadRowError):
        decode_row(junk, dim=dim)


def test_the_row_of_another_model_is_refused() -> None:
    row = encode_row(np.ones(DIM, dtype=np.float32))

    with pytest.raises(BadRowError, match=r"must hold 16 values, got 8 in 48 bytes"):
        decode_row(row, dim=16)


@pytest.mark.parametrize(
    "vector",
    [np.ones(3), np.ones((2, 3), dtype=np.float32), np.ones(3, dtype=np.int32)],
    ids=["float64", "a matrix", "integers"],
)
def test_only_vectors_of_known_types_are_written(vector: NDArray[np.floating]) -> None:
    with pytest.raises(ValueError, match=r"vector must be float32 or float16 of shape \(D,\), got"):
        encode_row(vector)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_embedding_that_is_not_finite_is_not_written(value: float) -> None:
    with pytest.raises(ValueError, match="vector must be finite"):
        encode_row(np.array([0, value], dtype=np.float32))


def build_rows(
    connection: RedisConnection,
    prefix: str,
    bad_rows: list[None] | None = None,
    refused: list[None] | None = None,
    max_queue: int = 256,
) -> SharedRows:
    bad: list[None] = [] if bad_rows is None else bad_rows
    refusals: list[None] = [] if refused is None else refused
    return SharedRows(
        connection,
        prefix=prefix,
        dim=DIM,
        ttl_s=60,
        on_bad_row=lambda: bad.append(None),
        on_refused=lambda: refusals.append(None),
        max_queue=max_queue,
    )


async def test_a_replica_reads_what_another_wrote(
    connection: RedisConnection, namespace: str
) -> None:
    writer, reader = (build_rows(connection, namespace) for _ in range(2))
    embedding = np.arange(DIM, dtype=np.float32)

    await writer.put("mug", embedding)

    np.testing.assert_array_equal(await reader.get("mug"), embedding)


async def test_bundle_versions_do_not_share_rows(
    connection: RedisConnection, namespace: str
) -> None:
    await build_rows(connection, f"{namespace}:v1:").put("mug", np.ones(DIM, dtype=np.float32))

    assert await build_rows(connection, f"{namespace}:v2:").get("mug") is None


async def test_a_bad_row_is_a_miss_and_counted(connection: RedisConnection, namespace: str) -> None:
    bad_rows: list[None] = []
    await connection.client.set(f"{namespace}mug", b"VEMB but not one")

    assert await build_rows(connection, namespace, bad_rows).get("mug") is None
    assert len(bad_rows) == 1


async def test_an_unused_row_is_forgotten_and_use_renews_it(
    connection: RedisConnection, namespace: str
) -> None:
    rows = build_rows(connection, namespace)
    await rows.put("mug", np.ones(DIM, dtype=np.float32))
    assert 55 <= await connection.client.ttl(f"{namespace}mug") <= 60
    await connection.client.expire(f"{namespace}mug", 5)

    await rows.get("mug")

    assert 55 <= await connection.client.ttl(f"{namespace}mug") <= 60


async def test_redis_being_away_is_a_miss_and_counted() -> None:
    refused: list[None] = []
    away = RedisConnection("redis://127.0.0.1:1/0", timeout_s=0.2)
    rows = build_rows(away, "", refused=refused)

    await rows.put("mug", np.ones(DIM, dtype=np.float32))

    assert await rows.get("mug") is None
    assert len(refused) == 2
    await away.close()


async def test_a_burst_shares_round_trips(redis_server: EmbeddedRedis, namespace: str) -> None:
    one = RedisConnection(f"{redis_server.url}?max_connections=1", timeout_s=2)
    rows = build_rows(one, namespace)
    embeddings = np.arange(200 * DIM, dtype=np.float32).reshape(-1, DIM)

    await asyncio.gather(*(rows.put(str(n), row) for n, row in enumerate(embeddings)))

    found = await asyncio.gather(*(rows.get(str(n)) for n in range(201)))
    np.testing.assert_array_equal(np.stack([row for row in found if row is not None]), embeddings)
    assert found[200] is None
    await one.close()


async def test_one_key_of_another_kind_fails_its_own_caller_alone(
    connection: RedisConnection, namespace: str
) -> None:
    rows = build_rows(connection, namespace)
    await rows.put("mug", np.ones(DIM, dtype=np.float32))
    await connection.client.lpush(f"{namespace}list", "not a row")

    list_found, mug = await asyncio.gather(
        rows.get("list"), rows.get("mug"), return_exceptions=True
    )

    assert isinstance(list_found, InternalError)
    np.testing.assert_array_equal(mug, np.ones(DIM))


async def test_too_many_waiting_reads_are_misses_and_counted(
    connection: RedisConnection, namespace: str
) -> None:
    refused: list[None] = []
    rows = build_rows(connection, namespace, refused=refused, max_queue=3)
    await rows.put("mug", np.ones(DIM, dtype=np.float32))

    found = await asyncio.gather(*(rows.get("mug") for _ in range(9)))

    assert [one is None for one in found] == [False] * 3 + [True] * 6
    assert len(refused) == 6
