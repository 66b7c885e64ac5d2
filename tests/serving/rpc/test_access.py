"""Roles, rates, names of calls, and the lines of the log about them, over the wire."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from protos.recsys.v1 import recommender_pb2 as pb
from protos.recsys.v1 import recommender_pb2_grpc as rpc
from serving.client import AdminClient, AsyncClient, Event, Item
from serving.errors import (
    ForbiddenError,
    OverloadedError,
    UnauthenticatedError,
    UnavailableError,
)
from serving.logs import JsonLines
from serving.rpc.health import LIVENESS, SERVICE
from serving.testing import running_service
from tests.serving.test_tokens import entry


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.toml"
    path.write_text(
        entry("shop", "read", "s1") + entry("feed", "write", "s2") + entry("ops", "admin", "s3")
    )
    return path


async def test_each_role_can_do_its_part_and_each_write_is_audited_without_users(
    shop: Any, redis_server: Any, namespace: str, tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="serving")
    settings = {"redis": redis_server.url, "namespace": namespace, "tokens": tokens}
    async with running_service(shop.path, **settings) as service:
        async with AsyncClient(service.address, token="s1") as client:
            assert (await client.recommend("secret-user", k=1)).results
            with pytest.raises(ForbiddenError, match="'shop' must have the role write"):
                await client.record_events([Event("secret-user", "red-mug", "view")])
        async with AsyncClient(service.address, token="s2") as client:
            await client.record_events([Event("secret-user", "red-mug", "view")])
            await client.add_items([Item("trumpet", title="golden trumpet")])
            await client.delete_items(["trumpet"])
        async with AsyncClient(service.address, token="s4") as client:
            with pytest.raises(UnauthenticatedError):
                await client.recommend("secret-user", k=1)

        def operate() -> None:
            with AdminClient(service.address, token="s2") as admin, pytest.raises(ForbiddenError):
                admin.swap()
            with AdminClient(service.address, token="s3") as admin:
                admin.swap()

        await asyncio.to_thread(operate)
        telemetry = service.telemetry
    lines = [one for one in caplog.messages if one.startswith("audit")]
    assert [line.partition(" ended")[0] for line in lines] == [
        "audit: RecordEvents by feed",
        "audit: UpsertItems by feed",
        "audit: DeleteItems by feed",
        "audit: SwapBundle by ops",
    ]
    assert lines[0].endswith("1 events")
    assert lines[1].endswith("items ['trumpet']")
    for stage in ("catalogue_wait", "catalogue_run", "towers_run", "redis"):
        assert telemetry.value("recsys_stage_seconds_count", stage=stage) > 0, stage
    assert telemetry.value("recsys_refused_total", code="PERMISSION_DENIED") == 2
    assert telemetry.value("recsys_refused_total", code="UNAUTHENTICATED") == 1
    for secret in ("secret-user", "s1", "s2", "s3"):
        assert secret not in caplog.text


async def test_a_client_that_calls_too_often_is_refused_with_the_time_to_wait(
    shop: Any, redis_server: Any, namespace: str
) -> None:
    settings = {"redis": redis_server.url, "namespace": namespace, "calls_per_s": 0.01}
    async with running_service(shop.path, **settings) as service:
        async with AsyncClient(service.address) as client:
            await client.similar("red-mug", k=1)
            with pytest.raises(OverloadedError, match=r"at most 0\.01 calls a second"):
                await client.similar("red-mug", k=1)
        async with grpc.aio.insecure_channel(service.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await rpc.RecommenderStub(channel).GetItems(pb.GetItemsRequest())
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status = rpc_status.from_call(caught.value)
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert 90 < retry.retry_delay.seconds <= 100


async def test_a_stop_is_announced_before_calls_are_refused(
    shop: Any, redis_server: Any, namespace: str
) -> None:
    settings = {"redis": redis_server.url, "namespace": namespace, "notice_s": 2}
    async with (
        running_service(shop.path, **settings) as service,
        AsyncClient(service.address) as client,
        grpc.aio.insecure_channel(service.address) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)

        async def status(name: str) -> int:
            return (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status

        served = health_pb2.HealthCheckResponse.SERVING
        assert [await status(name) for name in ("", SERVICE, LIVENESS)] == [served] * 3
        stopping = asyncio.create_task(service.stop())
        await asyncio.sleep(0.1)
        assert [await status(name) for name in ("", SERVICE)] != [served] * 2
        assert await status(LIVENESS) == served
        assert (await client.similar("red-mug", k=1)).results
        await stopping
        with pytest.raises(UnavailableError):
            await client.similar("red-mug", k=1)


async def test_the_clients_name_of_a_call_comes_back_and_is_in_the_log(
    shop: Any, redis_server: Any, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="serving")
    caplog.handler.setFormatter(JsonLines())
    settings = {"redis": redis_server.url, "namespace": namespace}
    async with (
        running_service(shop.path, **settings) as service,
        grpc.aio.insecure_channel(service.address) as channel,
    ):
        names = {}
        for sent in ("page-17", "no good name"):
            call = rpc.RecommenderStub(channel).DeleteItems(
                pb.DeleteItemsRequest(item_ids=["x"]), metadata=(("x-request-id", sent),)
            )
            await call
            names[sent] = dict(await call.trailing_metadata())["x-request-id"]
    assert names["page-17"] == "page-17"
    assert len(names["no good name"]) == 16
    lines = [json.loads(line) for line in caplog.text.splitlines()]
    audits = [line for line in lines if line["message"].startswith("audit")]
    assert [line["request_id"] for line in audits] == list(names.values())
    assert {line["bundle_version"] for line in audits} == {shop.path.name}
    assert {line["method"] for line in audits} == {"DeleteItems"}
