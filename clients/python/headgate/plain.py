"""Messages as plain values for JSON that people read: the administration's REST API and command.

Names are the proto's. A duration is a number of seconds under its name with `_seconds`, an enum its value
in lower case without the prefix; null means unset. Pure. For messages that no request path writes: it
walks the descriptors each time.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import Any

from google.protobuf import duration_pb2
from google.protobuf.message import Message

_DURATION = duration_pb2.Duration.DESCRIPTOR.full_name


def plain(message: Message) -> dict[str, Any]:
    """The message as a dictionary with every field, in the proto's order. Knows no maps."""
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        name, value = field.name, getattr(message, field.name)
        if field.message_type is not None and field.message_type.full_name == _DURATION:
            name = f"{name}_seconds"
        if isinstance(value, MutableSequence):
            found[name] = [_value(field, each) for each in value]
        elif field.has_presence and not message.HasField(field.name):
            found[name] = None
        else:
            found[name] = _value(field, value)
    return found


def _value(field: Any, value: Any) -> Any:  # a FieldDescriptor, of whichever implementation
    if isinstance(value, duration_pb2.Duration):
        return value.ToMicroseconds() / 1e6
    if isinstance(value, Message):
        return plain(value)
    if field.enum_type is not None:
        names = field.enum_type.values_by_number
        prefix = f"{field.name.upper()}_"
        return names[value].name.removeprefix(prefix).lower() if value in names else value
    return value
