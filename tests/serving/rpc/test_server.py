"""Starting, stopping, dying and coming back; everything real."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import redis
from grpc_health.v1 import health_pb2, health_pb2_grpc

from recsys.catalogue.embedder import ItemEmbedder, Modalities
from recsys.errors import BundleError, ConfigError
from serving.client import Answer, AsyncClient, Client, Event, Item
from serving.config import build_config
from serving.errors import ServingError, StateError, UnavailableError
from serving.rpc.server import Service, serve
from serving.state.connection import RedisConnection
from serving.testing import running_service
from tests.serving.plain_redis import damage
from tests.serving.refusals import REFUSALS, Refuse
from tests.serving.waiting import eventually

PROGRAM = """
import sys
from serving.rpc.server import serve
serve(sys.argv[1], port=0, state=sys.argv[2], on_ready=lambda address: print(address, flush=True))
"""


@contextmanager
def process(bundle: Path, state: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yield a service in a process of its own, and its address."""
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(bundle), str(state)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            yield running, running.stdout.readline().strip()
        finally:
            if running.poll() is None:
                running.kill()


def is_serving(address: str) -> bool:
    """Return whether a service takes new calls."""
    with grpc.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service="")
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def test_what_was_acknowledged_survives_killing_service_and_redis(
    shop: Any, tmp_path: Path
) -> None:
    with process(shop.path, tmp_path) as (running, address):
        with Client(address) as client:
            client.add_items([Item("trumpet", title="golden trumpet")])
            client.record_events([Event("newcomer", "trumpet", "view")])
            client.delete_items(["red-mug"])
        redis_pid = int((tmp_path / "redis.pid").read_text())
        running.kill()
        os.kill(redis_pid, signal.SIGKILL)

    async with (
        running_service(shop.path, state=tmp_path) as service,
        AsyncClient(service.address) as client,
    ):
        assert (await client.search("golden trumpet", k=1)).results[0].item_id == "trumpet"
        assert (await client.recommend("newcomer", k=1)).results[0].item_id == "trumpet"
        found = (await client.search("red mug", k=500)).results
        assert "red-mug" not in {result.item_id for result in found}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_service_and_its_redis(
    shop: Any, tmp_path: Path, number: signal.Signals
) -> None:
    answers: list[Answer] = []

    def call_then_signal(address: str) -> None:
        with Client(address) as client:
            answers.append(client.search("mug"))
        os.kill(os.getpid(), number)

    def on_ready(address: str) -> None:
        threading.Thread(target=call_then_signal, args=(address,)).start()

    serve(shop.path, port=0, state=tmp_path, on_ready=on_ready)

    assert len(answers[0].results) == 10
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "redis.log").read_text().split(":")[0]), 0)


def test_a_second_signal_does_not_wait_for_calls_in_flight(shop: Any, tmp_path: Path) -> None:
    outcomes: list[type[Exception]] = []

    def search(address: str) -> None:
        with Client(address, timeout_s=100) as client:
            try:
                client.search("mug")
            except ServingError as error:
                outcomes.append(type(error))

    def signal_twice(address: str) -> None:
        # The towers wait for company, so a search that has asked Redis for its embedding hangs.
        socket = tmp_path / "redis.sock"
        searching = threading.Thread(target=search, args=(address,))
        with redis.Redis(unix_socket_path=str(socket)) as client, client.monitor() as monitor:
            searching.start()
            next(one for one in monitor.listen() if one["command"].startswith("GETEX"))
        os.kill(os.getpid(), signal.SIGTERM)
        while is_serving(address):
            time.sleep(0.01)
        second_signal.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)
        searching.join()

    def on_ready(address: str) -> None:
        signalling.append(threading.Thread(target=signal_twice, args=(address,)))
        signalling[0].start()

    signalling: list[threading.Thread] = []
    second_signal: list[float] = []
    settings = {"port": 0, "state": tmp_path, "batch_wait_ms": 60_000, "drain_s": 60}
    serve(shop.path, on_ready=on_ready, **settings)
    signalling[0].join()

    assert time.monotonic() - second_signal[0] < 30
    assert len(outcomes) == 1


async def test_calls_in_flight_are_finished_and_new_ones_refused(
    shop: Any, redis_server: Any, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, gate = threading.Event(), threading.Event()
    embed = ItemEmbedder.modalities

    def embed_behind_gate(self: ItemEmbedder, *args: Any, **settings: Any) -> Modalities:
        reached.set()
        assert gate.wait(timeout=30)
        return embed(self, *args, **settings)

    monkeypatch.setattr(ItemEmbedder, "modalities", embed_behind_gate)
    async with (
        running_service(shop.path, redis=redis_server.url, namespace=namespace) as service,
        AsyncClient(service.address, timeout_s=30) as client,
    ):
        await client.similar("red-mug", k=1)
        flying = asyncio.create_task(client.search("mug", k=1))
        await asyncio.to_thread(reached.wait, 30)
        stopping = asyncio.create_task(service.stop())

        async def is_stopping() -> bool:
            return not await asyncio.to_thread(is_serving, service.address)

        await eventually(is_stopping)
        with pytest.raises(UnavailableError):
            await client.similar("red-mug", k=1)
        assert not flying.done()
        gate.set()
        assert len((await flying).results) == 1
        await stopping


async def test_without_redis_answers_are_degraded_and_writes_refused(
    shop: Any, tmp_path: Path
) -> None:
    async with running_service(shop.path, state=tmp_path) as service:
        assert service.redis is not None
        async with AsyncClient(service.address, timeout_s=5) as client:
            await client.record_events([Event("newcomer", "blue-lamp", "view")])
            known = await client.recommend("user-1", k=3)
            service.redis.stop()

            answer = await client.recommend("newcomer", k=3)
            assert "live_history_unavailable" in answer.degraded
            assert answer.results[0].source == "popular"
            assert (await client.recommend("user-1", k=3)).results == known.results
            assert "live_history_unavailable" in (await client.rank("x", ["red-mug"])).degraded
            assert len((await client.search("red mug", k=3)).results) == 3
            for write in (
                client.record_events([Event("newcomer", "red-mug", "view")]),
                client.add_items([Item("new", title="trumpet")]),
                client.delete_items(["red-mug"]),
            ):
                with pytest.raises(UnavailableError, match="Redis does not answer"):
                    await write
            assert (await client.get_items(["red-mug"])).items[0].item_id == "red-mug"
            degraded = service.telemetry.value(
                "recsys_degraded_total", reason="live_history_unavailable"
            )
            assert degraded == 3

            service.redis.start()

            async def is_whole() -> bool:
                return not (await client.recommend("newcomer", k=3)).degraded

            await eventually(is_whole)
            assert (await client.recommend("newcomer", k=1)).results[0].item_id == "blue-lamp"
            await client.add_items([Item("new", title="trumpet")])


async def test_a_redis_that_was_killed_is_back_with_its_data(shop: Any, tmp_path: Path) -> None:
    async with (
        running_service(shop.path, state=tmp_path) as service,
        AsyncClient(service.address, timeout_s=5) as client,
    ):
        assert service.redis is not None
        before = Event("newcomer", "blue-lamp", "view", shop.end)
        await client.record_events([before])
        os.kill(service.redis.pid, signal.SIGKILL)

        async def takes_writes() -> bool:
            with contextlib.suppress(UnavailableError):
                recorded = await client.record_events([before])
                assert recorded.duplicates == 1  # what was acknowledged is there
                return True
            return False

        async def is_whole() -> bool:
            return not (await client.recommend("newcomer", k=3)).degraded

        await eventually(takes_writes)
        await eventually(is_whole)


def test_a_service_whose_redis_cannot_start_again_ends_with_the_reason(
    shop: Any, tmp_path: Path
) -> None:
    def on_ready(_: str) -> None:
        damage(tmp_path)
        os.kill(int((tmp_path / "redis.pid").read_text()), signal.SIGKILL)

    with pytest.raises(StateError, match=r"Bad file format.*redis-check-aof"):
        serve(shop.path, port=0, state=tmp_path, on_ready=on_ready)


@pytest.mark.parametrize("refuse", REFUSALS)
async def test_a_redis_that_refuses_writes_leaves_reads_complete(
    shop: Any, tmp_path: Path, refuse: Refuse, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_service(shop.path, state=tmp_path) as service:
        assert service.redis is not None
        connection = RedisConnection(service.redis.url, timeout_s=2)
        async with AsyncClient(service.address, timeout_s=5) as client:
            await client.record_events([Event("secret-user", "blue-lamp", "view")])
            async with refuse(connection, tmp_path):
                answer = await client.search("red mug", k=3)
                assert (len(answer.results), answer.degraded) == (3, ())
                assert service.telemetry.value("recsys_refused_rows_total") == 2
                assert (await client.recommend("secret-user", k=1)).degraded == ()
                for write in (
                    client.record_events([Event("secret-user", "red-mug", "view")]),
                    client.add_items([Item("new", title="trumpet")]),
                    client.delete_items(["red-mug"]),
                ):
                    with pytest.raises(UnavailableError, match="takes no writes"):
                        await write
                async with running_service(shop.path, redis=service.redis.url) as replica:
                    assert not replica.address.endswith(":0")  # to start is to read
        await connection.close()
    assert "secret-user" not in caplog.text


async def test_a_port_in_use_is_an_error(shop: Any, service: Service, tmp_path: Path) -> None:
    port = int(service.address.rsplit(":", 1)[1])

    with pytest.raises(ConfigError, match=rf"127.0.0.1:{port} cannot be listened on"):
        await Service.start(shop.path, build_config({}, port=port, state=tmp_path))
    await Service.stop(await Service.start(shop.path, build_config({}, port=0, state=tmp_path)))


async def test_settings_that_cannot_work_are_errors_before_the_bundle_is_opened(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for settings, wanted in (
            ({"metrics_port": port}, f"metrics_port 127.0.0.1:{port} cannot be listened on: anoth"),
            ({"device": "tpu"}, "device must be one that torch can use here"),
            ({"device": "hpu"}, "device must be one that torch can use here"),
            ({"redis": "redis://host?protocol=3"}, "redis must be a URL without the option 'proto"),
            ({"tls_certificate": "/x.pem", "tls_key": "/x.pem"}, "must be a readable file"),
        ):
            with pytest.raises(ConfigError, match=wanted):
                await Service.start(tmp_path / "nothing", build_config({}, port=0, **settings))


async def test_the_address_of_a_service_on_ipv6_can_be_called(shop: Any, redis_server: Any) -> None:
    async with (
        running_service(shop.path, host="[::1]", redis=redis_server.url) as service,
        AsyncClient(service.address) as client,
    ):
        assert service.address.startswith("[::1]:")
        assert len((await client.similar("red-mug", k=1)).results) == 1


async def test_a_folder_in_use_is_an_error(shop: Any, tmp_path: Path) -> None:
    async with running_service(shop.path, state=tmp_path):
        with pytest.raises(StateError, match="one service at a time"):
            await Service.start(shop.path, build_config({}, port=0, state=tmp_path))


async def test_a_redis_that_does_not_answer_is_an_error_without_its_password(shop: Any) -> None:
    config = build_config({}, port=0, redis="redis://:sesame@127.0.0.1:1/0")

    with pytest.raises(StateError, match=r"redis redis://127.0.0.1:1/0 must answer") as caught:
        await Service.start(shop.path, config)
    assert "sesame" not in str(caught.value)


async def test_a_path_without_a_bundle_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        await Service.start(tmp_path / "nothing", build_config({}, state=tmp_path))


@pytest.mark.slow
async def test_a_client_that_pings_every_second_keeps_its_connection(service: Service) -> None:
    pinging = [
        ("grpc.keepalive_time_ms", 1_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    async with grpc.aio.insecure_channel(service.address, options=pinging) as channel:
        await channel.channel_ready()
        # gRPC's default ends the connection at the third ping.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(
                channel.wait_for_state_change(grpc.ChannelConnectivity.READY), timeout=5
            )


async def test_a_client_calls_a_service_again_soon_after_it_was_restarted(
    shop: Any, redis_server: Any, namespace: str
) -> None:
    settings = {"redis": redis_server.url, "namespace": namespace}
    async with running_service(shop.path, **settings) as service:
        port = int(service.address.rpartition(":")[2])
        client = AsyncClient(service.address, timeout_s=5)
        await client.similar("red-mug", k=1)
    with pytest.raises(UnavailableError):
        await client.similar("red-mug", k=1)
    async with running_service(shop.path, **settings, port=port):

        async def answers() -> bool:
            with contextlib.suppress(UnavailableError):
                return bool((await client.similar("red-mug", k=1)).results)
            return False

        await eventually(answers, within_s=5)
    await client.close()


async def test_metrics_are_served_over_http(shop: Any, redis_server: Any, namespace: str) -> None:
    settings = {"metrics_port": 0, "redis": redis_server.url, "namespace": namespace}
    async with running_service(shop.path, **settings) as service:
        assert service.metrics is not None
        async with AsyncClient(service.address) as client:
            version = (await client.search("mug")).bundle_version
        reader, writer = await asyncio.open_connection("127.0.0.1", service.metrics.port)
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        page = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()

    assert 'recsys_requests_total{code="OK",method="Search"} 1.0' in page
    assert f'recsys_bundle_info{{version="{version}"}} 1.0' in page
