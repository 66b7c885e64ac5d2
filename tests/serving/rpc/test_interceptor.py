"""What every call passes on its way in and out, seen from outside with plain gRPC."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from protos.recsys.v1 import recommender_pb2 as pb
from protos.recsys.v1 import recommender_pb2_grpc as rpc
from recsys.errors import InvalidImageError
from serving.client import AsyncClient, Event, Item
from serving.errors import (
    DeadlineError,
    InternalError,
    OverloadedError,
    UnauthenticatedError,
    UnavailableError,
)
from serving.rpc.server import Service
from serving.testing import running_service
from tests.odd_pictures import broken, readable
from tests.serving.waiting import eventually

TLS = Path(__file__).with_name("tls")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def channel(service: Service) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(service.address) as channel:
        yield channel


@pytest.fixture
async def guarded(shop: Any, redis_server: Any, namespace: str) -> AsyncIterator[Service]:
    """Yield a service that wants a token."""
    settings = {"redis": redis_server.url, "namespace": namespace, "token": "sesame"}
    async with running_service(shop.path, **settings) as service:
        yield service


async def health_of(channel: grpc.aio.Channel, name: str) -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status


async def reflected_services(channel: grpc.aio.Channel) -> set[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    async for response in stub.ServerReflectionInfo(iter([request])):
        return {service.name for service in response.list_services_response.service}
    return set()


async def test_an_error_has_its_reason_in_the_status_details(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rpc.RecommenderStub(channel).GetItems(pb.GetItemsRequest(item_ids=["unheard of"]))

    status = rpc_status.from_call(caught.value)  # as everybody reads it
    info = error_details_pb2.ErrorInfo()
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("UNKNOWN_ITEM", "vitrine-recsys")


@pytest.mark.parametrize("kind", [KeyError, ValueError, OSError])
async def test_a_defect_is_logged_with_its_traceback_and_hidden_from_the_caller(
    service: Service,
    client: AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: type[Exception],
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise kind("an internal detail")

    monkeypatch.setattr("recsys.recommender.Recommender.similar", broken)

    with pytest.raises(InternalError) as caught:
        await client.similar("red-mug")

    assert "internal detail" not in str(caught.value)
    request_id = str(caught.value).split()[-1]
    assert f"SimilarItems failed, request_id {request_id}" in caplog.text
    assert "Traceback" in caplog.text
    assert "an internal detail" in caplog.text
    assert await counted(service, "SimilarItems", "INTERNAL") == 1


async def test_calls_are_counted_by_method_and_outcome(
    service: Service, client: AsyncClient
) -> None:
    await client.search("mug")
    with pytest.raises(ValueError, match="k must be"):
        await client.search("mug", k=0)

    assert await counted(service, "Search", "OK") == 1
    assert await counted(service, "Search", "INVALID_ARGUMENT") == 1
    assert service.telemetry.value("recsys_request_seconds_count", method="Search") == 2


async def test_no_user_is_named_in_the_log(
    client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await client.record_events([Event("secret-user", "red-mug", "view")])
    await client.recommend("secret-user")

    assert "secret-user" not in caplog.text


async def test_a_defect_in_redis_is_logged_without_the_user(
    client: AsyncClient, connection: Any, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    await connection.client.set(f"{namespace}:history:secret-user", "no sorted set")

    with pytest.raises(InternalError):
        await client.record_events([Event("secret-user", "red-mug", "view")])

    assert "RecordEvents failed" in caplog.text
    assert "WRONGTYPE" in caplog.text
    assert "secret-user" not in caplog.text


async def test_without_the_token_nothing_is_answered(guarded: Service) -> None:
    for token in (None, "wrong", "sesame!"):
        async with AsyncClient(guarded.address, token=token) as client:
            with pytest.raises(UnauthenticatedError):
                await client.search("mug")
            with pytest.raises(UnauthenticatedError):
                await client.add_items([Item("new")])

    async with AsyncClient(guarded.address, token="sesame") as client:
        assert (await client.search("mug")).results


async def test_health_checks_need_no_token_but_reflection_does(guarded: Service) -> None:
    async with grpc.aio.insecure_channel(guarded.address) as channel:
        assert await health_of(channel, "") == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await reflected_services(channel)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_the_services_can_be_listed(channel: grpc.aio.Channel) -> None:
    assert await reflected_services(channel) == {
        "recsys.v1.Recommender",
        "recsys.v1.Admin",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


async def test_health_tells_the_service_from_what_it_depends_on(shop: Any, tmp_path: Path) -> None:
    async with (
        running_service(shop.path, state=tmp_path) as service,
        grpc.aio.insecure_channel(service.address) as channel,
    ):
        names = ("", "recsys.v1.Recommender", "redis")
        assert [await health_of(channel, name) for name in names] == [SERVING] * 3
        assert service.redis is not None
        service.redis.stop()

        async def is_redis_down() -> bool:
            return await health_of(channel, "redis") == NOT_SERVING

        await eventually(is_redis_down)
        assert await health_of(channel, "") == SERVING

        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=""))
        assert (await watch.read()).status == SERVING
        stopping = asyncio.create_task(service.stop())
        assert (await watch.read()).status == NOT_SERVING
        watch.cancel()
        await stopping


async def test_tls_protects_and_the_client_checks_it(
    shop: Any, redis_server: Any, namespace: str
) -> None:
    settings = {
        "redis": redis_server.url,
        "namespace": namespace,
        "tls_certificate": TLS / "certificate.pem",
        "tls_key": TLS / "key.pem",
        "token": "sesame",
        "host": "0.0.0.0",
    }
    async with running_service(shop.path, **settings) as service:
        address = service.address.replace("0.0.0.0", "127.0.0.1")
        certificate = TLS / "certificate.pem"
        async with AsyncClient(address, token="sesame", certificate=certificate) as client:
            assert (await client.search("mug")).results
        async with AsyncClient(address, token="sesame", timeout_s=1) as client:
            with pytest.raises((UnavailableError, DeadlineError)):
                await client.search("mug")


async def test_a_client_without_a_certificate_is_refused_where_one_is_wanted(
    shop: Any, redis_server: Any, namespace: str, tmp_path: Path
) -> None:
    certificate = TLS / "certificate.pem"
    identity = tmp_path / "own.pem"
    identity.write_bytes(certificate.read_bytes() + (TLS / "key.pem").read_bytes())
    settings = {
        "redis": redis_server.url,
        "namespace": namespace,
        "tls_certificate": certificate,
        "tls_key": TLS / "key.pem",
        "tls_clients": certificate,
    }
    async with running_service(shop.path, **settings) as service:
        known = AsyncClient(service.address, certificate=certificate, identity=identity)
        async with known as client:
            assert (await client.search("mug")).results
        async with AsyncClient(service.address, certificate=certificate, timeout_s=1) as client:
            with pytest.raises((UnavailableError, DeadlineError)):
                await client.search("mug")


async def test_requests_and_pictures_have_a_limit(
    shop: Any, redis_server: Any, namespace: str
) -> None:
    settings = {
        "redis": redis_server.url,
        "namespace": namespace,
        "max_message_bytes": 20_000,
        "max_image_bytes": 10_000,
    }
    async with (
        running_service(shop.path, **settings) as service,
        AsyncClient(service.address) as client,
    ):
        for call in (client.identify, lambda photo: client.search(image=photo)):
            with pytest.raises(InvalidImageError, match="1 to 10000 bytes, got 10001"):
                await call(b"x" * 10_001)
        with pytest.raises(InvalidImageError, match=r"items\[0\].picture must have"):
            await client.add_items([Item("new")], {"new": b"x" * 10_001})
        with pytest.raises(OverloadedError, match="larger than max"):
            await client.identify(b"x" * 20_001)


async def test_odd_photos_are_answered_and_broken_ones_refused(service: Service) -> None:
    async with AsyncClient(service.address) as client:
        for name, photo in readable().items():
            assert (await client.identify(photo, k=1)).candidates, name
        for photo in broken().values():
            with pytest.raises(InvalidImageError, match=r"image|photo"):
                await client.identify(photo)


async def test_an_overloaded_service_says_so_and_recovers(
    shop: Any, redis_server: Any, namespace: str
) -> None:
    settings = {"redis": redis_server.url, "namespace": namespace, "max_queue": 2}
    async with (
        running_service(shop.path, batch_wait_ms=200, **settings) as service,
        AsyncClient(service.address) as client,
    ):
        outcomes = await asyncio.gather(
            *(client.search(f"wish {number}") for number in range(10)), return_exceptions=True
        )
        refused = [one for one in outcomes if isinstance(one, OverloadedError)]

        assert len(refused) == 8
        assert "slow down" in str(refused[0])
        assert (await client.search("wish 0")).results


async def test_a_short_timeout_raises_a_deadline_error(
    shop: Any, redis_server: Any, namespace: str
) -> None:
    settings = {"redis": redis_server.url, "namespace": namespace, "batch_wait_ms": 1_000}
    async with (
        running_service(shop.path, **settings) as service,
        AsyncClient(service.address, timeout_s=0.2) as client,
    ):
        with pytest.raises(DeadlineError):
            await client.search("mug")


async def counted(service: Service, method: str, code: str) -> float:
    """Return how many calls were counted; a caller may have its answer before the counter does."""

    def calls() -> float:
        return service.telemetry.value("recsys_requests_total", method=method, code=code)

    await eventually(lambda: calls() > 0)
    return calls()
