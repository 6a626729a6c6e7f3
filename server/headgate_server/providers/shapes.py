"""What the shapes of every API's answers are made of, and where the members go that no shape names. Pure.

The shapes themselves are in each dialect's `wire`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from headgate.wire import Extra, ShapeDecoder, json_text

Number = int | float
Members = dict[str, msgspec.Raw]
ABSENT = msgspec.Raw()


class Wire(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The base of the shapes; strictness is what finds the unknown members."""


class CamelWire(Wire, rename="camel"):
    """The same, for APIs with names like `inputTokens`."""


class _Kind(msgspec.Struct):
    type: str = ""


_KIND = ShapeDecoder(_Kind)


def kind_of(raw: bytes | msgspec.Raw) -> str:
    """The `type` of a JSON object. Raises `MalformedJson`."""
    return _KIND.decode(bytes(raw)).type


def is_there(raw: msgspec.Raw) -> bool:
    """Whether a raw member came, and is not null."""
    return raw is not ABSENT and bytes(raw) not in (b"", b"null")


def there(named: Mapping[str, msgspec.Raw]) -> Members:
    """Those of the members that came, and are not null."""
    return {name: raw for name, raw in named.items() if raw is not ABSENT and is_there(raw)}


def as_raw(value: object) -> msgspec.Raw:
    """A value as JSON."""
    return msgspec.Raw(msgspec.json.encode(value))


def nested(name: str, inner: Extra | str) -> Members:
    """The unknown members of an object inside, as a member of that object's name; empty for none."""
    return {name: as_raw(inner)} if inner else {}


class _Holder(Protocol):
    extra_json: str


def keep(into: _Holder, *members: Extra) -> None:
    """Sets `extra_json` to the members that have no place of their own; of two alike the later wins.

    Raises:
        MalformedJson: they hold bytes that are not UTF-8.
    """
    found: Extra = None
    for each in members:
        if each:
            found = {**found, **each} if found else each
    if found:
        into.extra_json = json_text(found) or ""
