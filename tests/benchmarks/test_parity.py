import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks.parity import (
    Request,
    compare,
    draw_requests,
    draw_settings,
    measure_bundle,
    read_log,
)
from recsys import Bundle


def test_lists_are_compared_by_their_order_and_the_scores_of_the_same_item() -> None:
    served = [[("a", 1.0), ("b", 0.5)], [("a", 1.0), ("b", 0.5)]]
    offline = [[("a", 1.0), ("b", 0.5)], [("b", 0.75), ("a", 0.9)]]
    gap = compare(served, offline)
    assert gap.score == 0.25
    assert gap.lists_equal == 0.5


def test_an_answer_that_is_missing_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        compare([[("a", 1.0)]], [])


def test_a_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    request = Request("u1", 3, (("i1", "view", "2026-01-01T00:00:00+00:00"),), (("i2", 0.1),))
    log = tmp_path / "log.ndjson"
    log.write_text(json.dumps(asdict(request)) + "\n")
    assert list(read_log(log)) == [request]
    assert request.live_events()[0].item_id == "i1"


def test_requests_are_of_known_and_unknown_users_some_with_events(tiny_bundle: Path) -> None:
    bundle, generator = Bundle(tiny_bundle), np.random.default_rng(0)
    settings = draw_settings(bundle, 6, generator)
    requests = draw_requests(bundle, settings, 20, generator)
    assert len(requests) == 120
    known = set(bundle.interactions.user_ids)
    assert sum(request.user not in known for request in requests) == 12
    assert 10 < sum(bool(request.events) for request in requests) < 50


def test_a_service_and_its_replay_answer_alike(tiny_bundle: Path) -> None:
    for gap in measure_bundle(Bundle(tiny_bundle), 4, 12, np.random.default_rng(1)).values():
        assert gap == (0.0, 1.0)
