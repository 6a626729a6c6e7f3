"""Messages in which each field is set once, for laws that must not overlook one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message


def _values(field: FieldDescriptor) -> list[Any]:
    """Two values of a plain field, neither of them its default."""
    if field.enum_type is not None:
        return [value.number for value in field.enum_type.values if value.number][:2]
    return {
        FieldDescriptor.CPPTYPE_STRING: [b"x", b"y"]
        if field.type == field.TYPE_BYTES
        else ["x", "y"],
        FieldDescriptor.CPPTYPE_BOOL: [True],
        FieldDescriptor.CPPTYPE_DOUBLE: [0.25, 0.5],
    }.get(field.cpp_type, [1, 2])


def variants(make: type[Message], depth: int = 0) -> Iterator[tuple[str, Message]]:
    """Messages in which one field, however deep, is set; each with the field's path.

    Messages within themselves (a tool's result has parts) are followed twice.
    """
    for field in make.DESCRIPTOR.fields:
        if field.message_type is None:
            for value in _values(field):
                message = make()
                if field.is_repeated:
                    getattr(message, field.name).append(value)
                else:
                    setattr(message, field.name, value)
                yield field.name, message
            if field.has_presence:
                message = make()
                setattr(message, field.name, field.default_value)
                yield field.name, message
        elif field.message_type.GetOptions().map_entry:
            value = field.message_type.fields_by_name["value"]
            for key in ("x", "y"):
                for each in _values(value):
                    message = make()
                    getattr(message, field.name)[key] = each
                    yield field.name, message
        elif depth < 7:
            inner_type = getattr(make(), field.name)
            inner_type = type(inner_type.add() if field.is_repeated else inner_type)
            for path, inner in [("", inner_type()), *variants(inner_type, depth + 1)]:
                message = make()
                place = getattr(message, field.name)
                if field.is_repeated:
                    place.add().CopyFrom(inner)
                else:
                    place.CopyFrom(inner)
                    place.SetInParent()
                yield f"{field.name}.{path}".rstrip("."), message
