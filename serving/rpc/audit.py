"""One line of the log for each call that changes something."""

import logging
from typing import Any

from google.protobuf.message import Message

from protos.recsys.v1 import admin_pb2
from protos.recsys.v1 import recommender_pb2 as pb
from serving.logs import Call

logger = logging.getLogger(__name__)

MAX_IDS = 5


def audit(call: Call, request: Any, code: str) -> None:
    """Log who changed what, without users and without what the call holds.

    Args:
        call: The call.
        request: Its message; anything else for a stream.
        code: Status code with which it ended.
    """
    logger.info(
        "audit: %s by %s ended with %s, request_id %s, %s",
        call.method,
        call.client or "anyone",
        code,
        call.request_id,
        describe(request),
    )


def describe(request: Any) -> str:
    """Return what a call is about: the items, the number of events, or the bundle."""
    if isinstance(request, pb.RecordEventsRequest):
        return f"{len(request.events)} events"
    if isinstance(request, pb.UpsertItemsRequest):
        return _items([one.item.item_id for one in request.items])
    if isinstance(request, pb.ForgetLiveItemsRequest) and request.selection:
        return pb.LiveSelection.Name(request.selection)
    if isinstance(request, pb.DeleteItemsRequest | pb.ForgetLiveItemsRequest):
        return _items(request.item_ids)
    if isinstance(request, admin_pb2.LoadBundleRequest):
        return f"bundle {request.bundle_version or 'latest'!r}, share {request.share:g}"
    if isinstance(request, admin_pb2.SwapBundleRequest):
        return f"bundle {request.bundle_version or 'latest'!r}"
    return "" if isinstance(request, Message) else "a stream"


def _items(item_ids: Any) -> str:
    more = f" and {len(item_ids) - MAX_IDS} more" if len(item_ids) > MAX_IDS else ""
    return f"items {list(item_ids[:MAX_IDS])}{more}"
