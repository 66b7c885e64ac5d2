"""Between the client's values and protobuf."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC
from typing import get_args

from google.protobuf.timestamp_pb2 import Timestamp

from protos.recsys.v1 import recommender_pb2 as pb
from recsys.answers import (
    Added,
    Annotation,
    Answer,
    Colour,
    Deleted,
    Group,
    Guess,
    Identification,
    Item,
    ReadText,
    Reason,
    Result,
    SearchMode,
    Verdict,
    list_ids,
)
from recsys.catalogue.filters import Filters
from recsys.errors import InvalidArgumentError
from recsys.rules import Period, Rules, Selection, Shift
from serving.client.fields import build, build_image, build_timestamp, list_of
from serving.client.messages import (
    Forgotten,
    Items,
    LiveField,
    LiveItem,
    LiveItems,
    LiveSelection,
    Recorded,
)


def build_filters(filters: Filters) -> pb.Filters:
    """Return filters as a message.

    Raises:
        InvalidArgumentError: If they are anything but ``Filters``.
    """
    if not isinstance(filters, Filters):
        raise InvalidArgumentError(
            f"filters must be Filters, such as Filters(price_max=50), got {filters!r}"
        )
    return build(
        pb.Filters,
        "filters.",
        category=filters.category,
        price_min=filters.price_min,
        price_max=filters.price_max,
        attributes=filters.attributes,
        include_unavailable=not filters.available_only,
    )


def build_rules(rules: Rules | None) -> pb.Rules | None:
    """Return rules as a message, None for None.

    Raises:
        InvalidArgumentError: If they are anything but ``Rules``.
    """
    if rules is None:
        return None
    if not isinstance(rules, Rules):
        raise InvalidArgumentError(
            f"rules must be Rules, such as Rules(diversity=0.3), got {rules!r}"
        )
    return build(
        pb.Rules,
        "rules.",
        diversity=rules.diversity,
        max_per_category=rules.max_per_category,
        category_level=rules.category_level,
        popularity_penalty=rules.popularity_penalty,
        explore=rules.explore,
        seed=rules.seed,
        pin=[
            build(pb.Pin, "pin.", item_id=pin.item_id, position=pin.position, **_build_period(pin))
            for pin in rules.pin
        ],
        boost=[_build_shift(one) for one in rules.boost],
        bury=[_build_shift(one) for one in rules.bury],
        block=[_build_selection(one) for one in rules.block],
    )


def build_search(
    text: str | None, image: bytes | None, *, k: int, filters: Filters, mode: SearchMode
) -> pb.SearchRequest:
    """Return a request to search.

    Raises:
        InvalidArgumentError: If the mode is unknown.
    """
    if mode not in get_args(SearchMode):
        raise InvalidArgumentError(
            f"mode must be one of {', '.join(get_args(SearchMode))}, got {mode!r}"
        )
    return build(
        pb.SearchRequest,
        text="" if text is None else text,
        image=build_image("image", image) or b"",
        k=k,
        filters=build_filters(filters),
        mode=pb.SearchMode.Value(f"SEARCH_MODE_{mode.upper()}"),
    )


def build_items(items: Sequence[Item], pictures: Mapping[str, bytes]) -> pb.UpsertItemsRequest:
    """Return a request to store items.

    Raises:
        InvalidArgumentError: If one is anything but an ``Item``, or a picture is of none of them.
    """
    items = list_of("items", Item, items)
    if not isinstance(pictures, Mapping):
        raise InvalidArgumentError(
            "pictures must map item ids to the bytes of image files, got a "
            f"{type(pictures).__name__}"
        )
    strays = sorted(pictures.keys() - {item.item_id for item in items}, key=str)
    if strays:
        raise InvalidArgumentError(
            f"pictures must be of items in the same call, got others: {strays[:5]}"
        )
    return pb.UpsertItemsRequest(
        items=[
            pb.ItemUpsert(
                item=_build_item(f"items[{index}].", item),
                picture=build_image(f"items[{index}].picture", pictures.get(item.item_id)),
            )
            for index, item in enumerate(items)
        ]
    )


def build_forgetting(which: Collection[str] | LiveSelection) -> pb.ForgetLiveItemsRequest:
    """Return a request to forget live records.

    Raises:
        InvalidArgumentError: If ``which`` is a text that names no selection.
    """
    if not isinstance(which, str):
        return build(pb.ForgetLiveItemsRequest, item_ids=list_ids("which", which))
    if which not in get_args(LiveSelection):
        known = " or ".join(repr(one) for one in get_args(LiveSelection))
        raise InvalidArgumentError(f"which must be a list of item ids, {known}, got {which!r}")
    return pb.ForgetLiveItemsRequest(
        selection=pb.LiveSelection.Value(f"LIVE_SELECTION_{which.upper()}")
    )


def read_answer(
    message: pb.RecommendResponse | pb.RankResponse | pb.SimilarItemsResponse | pb.SearchResponse,
) -> Answer:
    """Return items, best first."""
    return Answer(
        results=_read_results(message.results),
        bundle_version=message.info.bundle_version,
        degraded=tuple(message.info.degraded),
    )


def read_identification(message: pb.IdentifyResponse) -> Identification:
    """Return what is on a photo."""
    return Identification(
        known=message.known,
        probability=message.probability,
        candidates=_read_results(message.candidates),
        verdict=_read_verdict(message.verdict),
        product_group=_read_group(message.answer) if message.HasField("answer") else None,
        annotation=(
            _read_annotation(message.annotation, message.info)
            if message.HasField("annotation")
            else None
        ),
        similar=_read_results(message.similar),
        words=tuple(message.words),
        bundle_version=message.info.bundle_version,
        degraded=tuple(message.info.degraded),
    )


def read_annotated(message: pb.AnnotateResponse) -> Annotation:
    """Return what a photo shows."""
    return _read_annotation(message.annotation, message.info)


def read_recorded(message: pb.RecordEventsResponse) -> Recorded:
    """Return how many events were recorded."""
    return Recorded(
        recorded=message.recorded,
        duplicates=message.duplicates,
        bundle_version=message.info.bundle_version,
        degraded=tuple(message.info.degraded),
    )


def read_added(message: pb.UpsertItemsResponse) -> Added:
    """Return how many items were added or replaced."""
    return Added(
        added=message.upserted,
        bundle_version=message.info.bundle_version,
        degraded=tuple(message.info.degraded),
    )


def read_deleted(message: pb.DeleteItemsResponse) -> Deleted:
    """Return how many items were deleted."""
    return Deleted(
        deleted=message.deleted,
        bundle_version=message.info.bundle_version,
        degraded=tuple(message.info.degraded),
    )


def read_items(message: pb.GetItemsResponse) -> Items:
    """Return stored records."""
    return Items(
        items=tuple(_read_item(item) for item in message.items),
        bundle_version=message.info.bundle_version,
        degraded=tuple(message.info.degraded),
    )


def read_live_items(message: pb.ListLiveItemsResponse) -> LiveItems:
    """Return a page of live records."""
    return LiveItems(
        items=tuple(_read_live_item(item) for item in message.items),
        next_page_token=message.next_page_token,
        bundle_version=message.info.bundle_version,
        degraded=tuple(message.info.degraded),
    )


def read_forgotten(message: pb.ForgetLiveItemsResponse) -> Forgotten:
    """Return how many live records were removed."""
    return Forgotten(
        forgotten=message.forgotten,
        bundle_version=message.info.bundle_version,
        degraded=tuple(message.info.degraded),
    )


def _read_live_item(message: pb.LiveItem) -> LiveItem:
    return LiveItem(
        item_id=message.item_id,
        deleted=message.deleted,
        written_at=(
            message.written_at.ToDatetime(tzinfo=UTC) if message.HasField("written_at") else None
        ),
        bundle_version=message.bundle_version,
        counts=message.counts,
        fields=tuple(
            LiveField(field.name, field.changed_at.ToDatetime(tzinfo=UTC), field.counts)
            for field in message.fields
        ),
    )


def _build_shift(shift: Shift) -> pb.Shift:
    return build(pb.Shift, items=_build_selection(shift), strength=shift.strength)


def _build_selection(selection: Selection) -> pb.Selection:
    return build(
        pb.Selection,
        item_ids=selection.item_ids,
        category=selection.category,
        attributes=selection.attributes,
        **_build_period(selection),
    )


def _build_period(period: Period) -> dict[str, Timestamp | None]:
    return {name: build_timestamp(name, getattr(period, name)) for name in ("since", "until")}


def _build_item(where: str, item: Item) -> pb.Item:
    return build(
        pb.Item,
        where,
        item_id=item.item_id,
        title=item.title,
        description=item.description,
        image=item.image,
        category=item.category,
        price=item.price,
        attributes=item.attributes,
        available=item.available,
        created_at=build_timestamp(f"{where}created_at", item.created_at),
    )


def _read_item(message: pb.Item) -> Item:
    return Item(
        item_id=message.item_id,
        title=message.title if message.HasField("title") else None,
        description=message.description if message.HasField("description") else None,
        image=message.image if message.HasField("image") else None,
        category=tuple(message.category),
        price=message.price if message.HasField("price") else None,
        attributes=dict(message.attributes),
        available=message.available,
        created_at=(
            message.created_at.ToDatetime(tzinfo=UTC) if message.HasField("created_at") else None
        ),
    )


def _read_results(messages: Sequence[pb.Result]) -> tuple[Result, ...]:
    return tuple(
        Result(
            item_id=message.item_id,
            score=message.score,
            source=message.source,
            features=tuple((feature.name, feature.value) for feature in message.features),
            reason=_read_reason(message.reason) if message.HasField("reason") else None,
            # Only an earlier release sends none, and it does not explore.
            propensity=message.propensity or 1.0,
            probability=message.probability if message.HasField("probability") else None,
        )
        for message in messages
    )


def _read_reason(message: pb.Reason) -> Reason:
    item_id = message.item_id if message.HasField("item_id") else None
    return Reason(message.kind, item_id, message.text)


_VERDICTS: "dict[pb.Verdict.ValueType, Verdict]" = {
    pb.VERDICT_PRODUCT: "product",
    pb.VERDICT_GROUP: "group",
    pb.VERDICT_UNKNOWN: "unknown",
}


def _read_verdict(message: "pb.Verdict.ValueType") -> Verdict:
    # A verdict that this release does not know yet is no reason to act.
    return _VERDICTS.get(message, "unsure")


def _read_group(message: pb.ProductGroup) -> Group:
    return Group(tuple(message.item_ids), tuple(message.category), message.probability)


def _read_annotation(message: pb.Annotation, info: pb.ResponseInfo) -> Annotation:
    probability = message.category_probability
    return Annotation(
        category=tuple(message.category),
        category_probability=probability if message.HasField("category_probability") else None,
        attributes={
            name: Guess(guess.value if guess.HasField("value") else None, guess.probability)
            for name, guess in sorted(message.attributes.items())
        },
        colours=tuple(Colour(colour.name, colour.share) for colour in message.colours),
        words=tuple(ReadText(line.text, line.probability) for line in message.words),
        bundle_version=info.bundle_version,
        degraded=tuple(info.degraded),
    )
