"""What the service finds out about a Redis before it starts, against real ones."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import serving
from serving.errors import StateError
from serving.state.connection import RedisConnection
from serving.state.redis_check import check_redis, reads, writes
from serving.state.redis_url import without_password
from tests.serving.cutting_proxy import CuttingProxy
from tests.serving.plain_redis import running_redis
from tests.serving.refusals import REFUSALS, Refuse


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[RedisConnection]:
    connection = RedisConnection(url, timeout_s=2)
    try:
        yield connection
    finally:
        await connection.close()


async def check(url: str, namespace: str = "shop") -> None:
    async with connected(url) as connection:
        await check_redis(connection, shown=without_password(url), namespace=namespace)


async def configure(url: str, *commands: Sequence[str | int]) -> None:
    async with connected(url) as connection:
        for command in commands:
            await connection.client.execute_command(*command)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Yield the URL of a Redis of this test's own."""
    with running_redis(tmp_path) as url:
        yield url


async def test_a_fit_redis_passes_and_only_short_lived_keys_stay(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await check(url)

    async with connected(url) as connection:
        left = await connection.client.keys("*")
        assert all([0 < await connection.client.ttl(key) <= 60 for key in left])
    assert caplog.messages == []


def test_every_command_of_the_service_is_tried() -> None:
    sources = [
        path.read_text("utf-8")
        for part in ("state", "engine")
        for path in (Path(serving.__file__).parent / part).glob("*.py")
        if path.stem not in ("embedded_redis", "redis_check")
    ]
    used = {
        name.upper()
        for source in sources
        for name in re.findall(r"redis\.call\(.([A-Z]+)|(?:client|pipeline)\.([a-z]+)\(", source)
        for name in name
    }

    tried = {str(command[0]) for command in reads("shop") + writes("shop")}
    assert used - {"", "PING", "PIPELINE", "ACLOSE", "EXECUTE"} <= tried


async def test_a_database_that_is_not_there_is_found_at_the_start(url: str) -> None:
    with pytest.raises(StateError, match="must answer, but refuses: DB index is out of range"):
        await check(f"{url}?db=99")


async def test_a_redis_that_wants_a_password_says_where_to_put_it(tmp_path: Path) -> None:
    with running_redis(tmp_path, "--requirepass", "sesame") as url:
        await check(f"{url}?password=sesame")
        for wrong in (url, f"{url}?password=simsim"):
            with pytest.raises(StateError, match=r"wants another user or password .*USER:PASSW"):
                await check(wrong)


async def test_the_error_for_a_user_without_rights_names_the_command_or_key(url: str) -> None:
    grants = ("+@all", "-getex", "~*"), ("+@all", "~shop:*")
    for name, grant in zip(("one", "two"), grants, strict=True):
        await configure(url, ("ACL", "SETUSER", name, "on", ">pw", *grant))

    with pytest.raises(StateError, match=r"permit its user GETEX on keys like .*grant it the"):
        await check(f"{url}?username=one&password=pw")
    with pytest.raises(StateError, match=r"permit its user GET on keys like \{shop:catalogue\}"):
        await check(f"{url}?username=two&password=pw")


async def test_the_grants_that_the_error_names_are_enough(url: str) -> None:
    granted = [
        f"+{name.lower()}" for name in {str(one[0]) for one in reads("shop") + writes("shop")}
    ]
    keys = "~shop:*", "~{shop:*"
    await configure(url, ("ACL", "SETUSER", "least", "on", ">pw", *granted, *keys))

    await check(f"{url}?username=least&password=pw")


async def test_a_redis_that_is_too_old_is_an_error_that_says_so(tmp_path: Path) -> None:
    with (
        running_redis(tmp_path, "--rename-command", "GETEX", "") as url,
        pytest.raises(StateError, match=r"must be Redis 6.2 or newer, but does not know GETEX"),
    ):
        await check(url)


@pytest.mark.parametrize("name", ["number", "records", "pictures", "stream", "epoch"])
async def test_keys_of_another_program_are_not_taken_for_ours(url: str, name: str) -> None:
    key = f"{{shop:catalogue}}:{name}"
    await configure(url, ("SADD", key, "theirs"))

    with pytest.raises(StateError, match=rf"another program under the key {re.escape(key)}; set"):
        await check(url)
    await check(url, namespace="other")


@pytest.mark.parametrize(
    ("policy", "harm"),
    [("noeviction", "will refuse writes"), ("allkeys-lru", "may drop live items and events")],
)
async def test_a_policy_that_evicts_the_wrong_keys_is_logged(
    url: str, policy: str, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    memory = "CONFIG", "SET", "maxmemory", 100_000_000
    await configure(url, memory, ("CONFIG", "SET", "maxmemory-policy", policy))
    await check(url)
    await configure(url, ("CONFIG", "SET", "maxmemory-policy", "volatile-lru"))
    await check(url)

    (line,) = caplog.messages
    assert f"{policy}, so it {harm}" in line


async def test_a_redis_behind_tls_is_reached_with_the_certificate_of_the_url(url: str) -> None:
    tls = Path(__file__).parents[1] / "rpc" / "tls"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls / "certificate.pem", tls / "key.pem")
    forward = CuttingProxy(url).serve
    server = await asyncio.start_server(
        lambda reader, writer: forward(url.removeprefix("unix://"), reader, writer),
        "127.0.0.1",
        0,
        ssl=context,
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        await check(f"rediss://localhost:{port}/0?ssl_ca_certs={tls / 'certificate.pem'}")
        with pytest.raises(StateError, match=r"must answer, but does not: .*certificate verify"):
            await check(f"rediss://localhost:{port}/0")


async def test_a_replica_may_be_read_and_is_logged(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await configure(url, ("REPLICAOF", "127.0.0.1", 1))
    await check(url)

    (line,) = caplog.messages
    assert "takes no writes for now: Redis is a replica by now" in line


@pytest.mark.parametrize("refuse", REFUSALS)
async def test_a_redis_that_refuses_writes_for_now_is_logged(
    tmp_path: Path, url: str, refuse: Refuse, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(url) as connection, refuse(connection, tmp_path):
        await check(url)

    (line,) = caplog.messages
    assert "takes no writes for now: Redis" in line


async def test_a_full_redis_is_logged(url: str, caplog: pytest.LogCaptureFixture) -> None:
    await configure(url, ("CONFIG", "SET", "maxmemory", 1))
    await check(url)

    assert "takes no writes for now: Redis is full; raise redis_bytes" in caplog.messages[0]


async def test_nobody_there_is_an_error_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"must answer, but does not: .*No such file.*check URL"):
        await check(f"unix://{tmp_path}/nothing.sock")
    with pytest.raises(StateError, match=r"redis redis://127.0.0.1:1/0 must answer, but does not"):
        await check("redis://:sesame@127.0.0.1:1/0")
