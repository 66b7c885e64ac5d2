"""Build messages of the protocol from a program's values; errors have the name of the field."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from recsys.errors import InvalidArgumentError

M = TypeVar("M", bound=Message)
V = TypeVar("V")

_KINDS = {
    FieldDescriptor.CPPTYPE_STRING: "text without half characters (lone surrogates)",
    FieldDescriptor.CPPTYPE_INT32: "a whole number of 32 bits",
    FieldDescriptor.CPPTYPE_UINT32: "a whole number of 32 bits",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
    FieldDescriptor.CPPTYPE_BOOL: "True or False",
}
_NUMBERS = (
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_DOUBLE,
)


def build(kind: type[M], where: str = "", /, **fields: Any) -> M:
    """Return a message with these fields.

    Args:
        kind: Class of the message.
        where: What precedes the names of fields in errors, such as "events[3].".
        **fields: Values of the fields; None leaves a field out that may be absent.

    Raises:
        InvalidArgumentError: If the protocol cannot carry a value; the message has its name.
    """
    try:
        message = kind(**fields)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArgumentError(_explain(kind, where, fields)) from error
    for name, value in fields.items():
        if _is_misread(kind, name, value):
            field = kind.DESCRIPTOR.fields_by_name[name]
            is_image = field.type == FieldDescriptor.TYPE_BYTES
            wanted = "the bytes of an image file" if is_image else _KINDS[field.cpp_type]
            raise InvalidArgumentError(f"{where}{name} must be {wanted}, got {value!r}")
    return message


def list_of(name: str, kind: type[V], values: Any) -> list[V]:
    """Return the values of an argument as a list.

    Raises:
        InvalidArgumentError: If it is not a list, or has a value of another kind.
    """
    if not isinstance(values, Iterable) or isinstance(values, Mapping | str | bytes):
        raise InvalidArgumentError(
            f"{name} must be a list of values of type {kind.__name__}, got {values!r}"
        )
    listed = list(values)
    for index, one in enumerate(listed):
        if not isinstance(one, kind):
            raise InvalidArgumentError(
                f"{name}[{index}] must be of type {kind.__name__}, got {one!r}"
            )
    return listed


def build_image(name: str, value: Any) -> bytes | None:
    """Return the bytes of an image file, None for None.

    Raises:
        InvalidArgumentError: If the value is something else, such as a path.
    """
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    raise InvalidArgumentError(
        f"{name} must be the bytes of an image file, got {type(value).__name__}; read them with "
        "Path(...).read_bytes() or file.read()"
    )


def build_timestamp(name: str, value: datetime | None) -> Timestamp | None:
    """Return a time as a message, None for None.

    Raises:
        InvalidArgumentError: If it is not a time, or has no time zone: which moment it means would
            be a guess.
    """
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidArgumentError(f"{name} must be a datetime with a time zone, got {value!r}")
    if value.tzinfo is None:
        raise InvalidArgumentError(
            f"{name} must have a time zone, got {value!r}; use datetime.now(UTC)"
        )
    message = Timestamp()
    try:
        message.FromDatetime(value.astimezone(UTC))
    except (ValueError, OverflowError) as error:
        raise InvalidArgumentError(
            f"{name} must be a time of the years 1 to 9999 in UTC, got {value!r}"
        ) from error
    return message


def _is_misread(kind: type[Message], name: str, value: Any) -> bool:
    """Return whether protobuf takes for a value what is none: bytes as text, True as 1."""
    field = kind.DESCRIPTOR.fields_by_name[name]
    if value is None:
        # Without presence it would be sent as 0 or as an empty text.
        return field.cpp_type in _KINDS and not field.has_presence
    if isinstance(value, bytes):
        return field.type == FieldDescriptor.TYPE_STRING
    return isinstance(value, bool) and field.cpp_type in _NUMBERS


def _explain(kind: type[Message], where: str, fields: Mapping[str, Any]) -> str:
    """Return which value the protocol cannot carry, found by trying each alone."""
    for name, value in fields.items():
        field = kind.DESCRIPTOR.fields_by_name[name]
        places: list[tuple[str, Any, Any]] = [(name, value, value)]
        if isinstance(value, list | tuple):
            places = [(f"{name}[{index}]", [one], one) for index, one in enumerate(value)]
        elif isinstance(value, dict):
            places = [(f"{name}[{key!r}]", {key: one}, one) for key, one in value.items()]
        for place, alone, shown in places:
            try:
                kind(**{name: alone})
            except (TypeError, ValueError, OverflowError) as error:
                wanted = _KINDS.get(field.cpp_type, f"what fits the protocol ({error})")
                return f"{where}{place} must be {wanted}, got {shown!r}"
    return f"{where.rstrip('.')} must fit the protocol"
