"""Proto JSON's two spellings: members in camelCase, as Google's clients write, or in snake_case. Pure.

Owns the respelling of members that a struct names. What a struct does not name keeps its spelling, and
so does everything inside `Raw` members: arguments of functions and schemas are the caller's own words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import inspect

from headgate.wire import EXTRA_SLOT, ShapeDecoder, raw_array, raw_object

T = TypeVar("T")


class ProtoJsonDecoder(Generic[T]):
    """Decodes one type. A body in camelCase costs one pass; only others are respelled first."""

    def __init__(self, shape: type[T]) -> None:
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(shape)
        self._with_extras: ShapeDecoder[T] = ShapeDecoder(shape)
        self._shape: Any = shape
        self._spelled: _Spelling | None = None

    def decode(self, text: bytes | msgspec.Raw) -> T:
        """The value. Raises `headgate.wire.MalformedJson`."""
        try:
            return self._decoder.decode(text)
        except msgspec.ValidationError as error:
            if "unknown field" in str(error):
                if self._spelled is None:
                    self._spelled = _spelling_of(inspect.type_info(self._shape))
                text = _respelled(text, self._spelled)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # what is wrong is said below
        return self._with_extras.decode(bytes(text))


@dataclass(slots=True)
class _Spelling:
    """How the members of a JSON value are spelled, level by level."""

    proper: dict[str, str] = field(default_factory=dict)  # snake_case -> camelCase
    nested: dict[str, _Spelling] = field(default_factory=dict)  # by camelCase


def _spelling_of(info: inspect.Type) -> _Spelling:
    """Of an object; where a list may stand, of its items."""
    spelling = _Spelling()
    for option in info.types if isinstance(info, inspect.UnionType) else (info,):
        if isinstance(option, inspect.ListType):
            found = _spelling_of(option.item_type)
        elif isinstance(option, inspect.StructType):
            found = _Spelling()
            for member in option.fields:
                if member.encode_name == EXTRA_SLOT:
                    continue
                if member.name != member.encode_name:
                    found.proper[member.name] = member.encode_name
                inner = _spelling_of(member.type)
                if inner.proper or inner.nested:
                    found.nested[member.encode_name] = inner
        else:
            continue
        spelling.proper |= found.proper
        spelling.nested |= found.nested
    return spelling


def _respelled(text: bytes | msgspec.Raw, spelling: _Spelling) -> bytes | msgspec.Raw:
    """The text in camelCase; the same object if it is that already.

    Raises:
        MalformedJson: it is not JSON.
    """
    first = bytes(text).lstrip()[:1]
    if first == b"[":
        old = raw_array(text)
        new = [_as_raw(_respelled(item, spelling)) for item in old]
        changed = any(after is not before for after, before in zip(new, old, strict=True))
        return msgspec.json.encode(new) if changed else text
    if first != b"{":
        return text
    members, proper = raw_object(bytes(text)), spelling.proper
    # Where both spellings stand, the camelCase one wins and the other is an unknown member.
    wrong = {name for name in members if name in proper and proper[name] not in members}
    if wrong:
        members = {proper[k] if k in wrong else k: value for k, value in members.items()}
    changed = bool(wrong)
    for name, inner in spelling.nested.items():
        value = members.get(name)
        if value is not None:
            respelled = _respelled(value, inner)
            if respelled is not value:
                members[name], changed = _as_raw(respelled), True
    return msgspec.json.encode(members) if changed else text


def _as_raw(text: bytes | msgspec.Raw) -> msgspec.Raw:
    return text if isinstance(text, msgspec.Raw) else msgspec.Raw(text)
