"""Messages of the library as JSON: kinds and states as words, versions and sizes as numbers, times in ISO 8601, digests
as text.

`google.protobuf.json_format` writes 64-bit numbers as text and enumerations by their long names, which no reader of the
command line would expect.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from encephalon.library.records.kinds import KINDS

__all__ = ["as_json", "record_view", "summary_view"]

_KINDS: Mapping[int, str] = {number: word for word, number in KINDS.items()}


def as_json(message: Message) -> dict[str, Any]:
    """Any message of the library. Of a record: the fields of `id` (kind, name, version) stand at its top; JSON texts
    within it stay texts. What is not set is left out.
    """
    view: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.name == "id":
            view = as_json(value) | view
        else:
            view[field.name] = _field(field, value)
    return view


record_view = as_json
summary_view = as_json


def _field(field: FieldDescriptor, value: Any) -> Any:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        of = entry.fields_by_name["value"]
        return {key: _value(of, value[key]) for key in sorted(value)}
    if field.is_repeated:
        return [_value(field, item) for item in value]
    return _value(field, value)


def _value(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, Timestamp):
        return value.ToDatetime(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, Message):
        return as_json(value)
    if field.enum_type is None:
        return value
    if field.enum_type.name == "Kind":
        return _KINDS.get(value, str(value))
    known = field.enum_type.values_by_number.get(value)
    return known.name.removeprefix("STATE_").lower() if known is not None else str(value)
