from prometheus_client import REGISTRY, generate_latest

from serving.telemetry import Telemetry


def test_what_is_counted_can_be_read() -> None:
    telemetry = Telemetry()
    telemetry.request("Search", "OK", 0.003)
    telemetry.degraded("live_history_unavailable")
    telemetry.lookup("redis")
    telemetry.bad_row()
    telemetry.refused_row()
    telemetry.batch(3)
    telemetry.serves("v0")
    telemetry.serves("v1")
    telemetry.answered_by("v1")

    assert telemetry.value("recsys_requests_total", method="Search", code="OK") == 1
    assert telemetry.value("recsys_request_seconds_bucket", method="Search", le="0.005") == 1
    assert telemetry.value("recsys_degraded_total", reason="live_history_unavailable") == 1
    assert telemetry.value("recsys_embedding_lookups_total", tier="redis") == 1
    assert telemetry.value("recsys_bad_rows_total") == 1
    assert telemetry.value("recsys_refused_rows_total") == 1
    assert telemetry.value("recsys_tower_batch_size_sum") == 3
    assert telemetry.value("recsys_bundle_info", version="v1") == 1
    assert telemetry.value("recsys_bundle_info", version="v0") == 0
    assert telemetry.value("recsys_answers_total", version="v1") == 1
    assert telemetry.value("recsys_requests_total", method="Rank", code="OK") == 0


def test_services_in_one_process_count_for_themselves() -> None:
    one, other = Telemetry(), Telemetry()
    one.bad_row()

    assert other.value("recsys_bad_rows_total") == 0
    assert b"recsys" not in generate_latest(REGISTRY)
